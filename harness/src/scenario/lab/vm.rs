//! What the guest's memory management counts, and where it swaps to.

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// The sum of the counters of `/proc/vmstat` whose names begin like this; one counter by its whole name. That there is
    /// none is an error.
    pub fn vmstat(&self, begin: &str) -> Result<u64> {
        let text = self.guest.read_text("/proc/vmstat")?;
        let counters: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let exact = counters.iter().find(|(name, _)| *name == begin);
        let wanted: Vec<_> = match exact {
            Some(counter) => vec![counter],
            None => counters.iter().filter(|(name, _)| name.starts_with(begin)).collect(),
        };
        wanted.first().with_context(|| format!("/proc/vmstat has no {begin}"))?;
        wanted.into_iter().map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
    }

    /// Swaps to a disk of the guest from now on; what was on it is lost.
    pub fn swap_on(&self, disk: &str) -> Result<()> {
        self.sh(&format!("mkswap {disk} >/dev/null && swapon {disk}")).map(drop)
    }

    /// Swaps to memory that is compressed (zram) from now on: at most so many MiB before compression.
    pub fn swap_on_zram(&self, mib: u64) -> Result<()> {
        self.sh(&format!("echo {mib}M > /sys/block/zram0/disksize"))?;
        self.swap_on("/dev/zram0")
    }
}
