//! The guest's memory management: counters, swap, NUMA balancing.

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// A counter of `/proc/vmstat`, or the sum of those whose names begin like this. Fails if there is none.
    pub fn vmstat(&self, begin: &str) -> Result<u64> {
        // Each processor counts for itself, and adds to the total only now and then.
        self.guest.read_text("/proc/sys/vm/stat_refresh")?;
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

    /// Drains the processors' batches of pages to the LRU lists. Until then `MADV_COLD`, `MADV_PAGEOUT` and DAMON skip these
    /// pages, unless they happen to run on the processor that holds them.
    pub fn fill_lru_lists(&self) -> Result<()> {
        Ok(self.guest.write_file("/proc/sys/vm/drop_caches", "1")?)
    }

    /// Free bytes of a node. Unlike `MemFree`, this includes pages on the processors' lists.
    pub fn free_bytes(&self, node: u32) -> Result<u64> {
        self.guest.read_text("/proc/sys/vm/stat_refresh")?;
        let text = self.guest.read_text("/proc/zoneinfo")?;
        let free =
            free_pages(&text, node).with_context(|| format!("/proc/zoneinfo has no free pages of node {node}"))?;
        Ok(free * 4096)
    }

    /// Swaps to a disk of the guest from now on, overwriting it.
    pub fn swap_on(&self, disk: &str) -> Result<()> {
        self.sh(&format!("mkswap {disk} >/dev/null && swapon {disk}")).map(drop)
    }

    /// Swaps to compressed memory (zram) from now on: at most this many MiB before compression.
    pub fn swap_on_zram(&self, mib: u64) -> Result<()> {
        self.sh(&format!("echo {mib}M > /sys/block/zram0/disksize"))?;
        self.swap_on("/dev/zram0")
    }

    /// Sets `kernel.numa_balancing` (0: off, 1: pages follow the node that uses them, 2: pages in use are promoted), with a scan
    /// every 10 to 100 ms of a busy program. By default the first scan comes after a second, and a round takes seconds.
    pub fn numa_balancing(&self, mode: u32) -> Result<()> {
        self.sh(&format!(
            "cd /sys/kernel/debug/sched/numa_balancing && echo 10 > scan_delay_ms && echo 10 > scan_period_min_ms && \
             echo 100 > scan_period_max_ms && echo {mode} > /proc/sys/kernel/numa_balancing"
        ))?;
        Ok(())
    }
}

/// Free pages of a node: `pages free` of its zones, and `count:` of each processor's lists.
fn free_pages(zoneinfo: &str, node: u32) -> Option<u64> {
    let (begin, mut inside, mut free) = (format!("Node {node}, zone"), false, None);
    for line in zoneinfo.lines() {
        if line.starts_with("Node ") {
            inside = line.starts_with(&begin);
        }
        let line = line.trim();
        let number = line.strip_prefix("pages free").or_else(|| line.strip_prefix("count:"));
        if let (true, Some(number)) = (inside, number) {
            free = Some(free.unwrap_or(0) + number.trim().parse::<u64>().ok()?);
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_on_the_processors_lists_are_free() {
        let text = "Node 0, zone    DMA32\n  pages free     1000\n        boost    0\n  pagesets\n    cpu: 0\n\
                    \x20             count:    50\n              high:     300\n    cpu: 1\n              count:    7\n\
                    Node 0, zone   Normal\n  pages free     5\nNode 1, zone  Movable\n  pages free     9\n";
        assert_eq!((free_pages(text, 0), free_pages(text, 1), free_pages(text, 2)), (Some(1062), Some(9), None));
    }
}
