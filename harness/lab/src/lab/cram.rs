//! CRAM: the device's memory as a tier for cold pages, never written in place.
//!
//! Each kernel tree with CRAM has its own names for files, counters and trace events. Only an [`Adapter`] knows them;
//! scenarios get the tier as a [`Cram`] from [`Lab::cram`]. To add a tree, write a file in `cram/` with a type that
//! implements [`Adapter`], and list it in `ADAPTERS`.

mod chart;
mod ours;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{LIMIT, Lab};
use crate::guest::client::GuestError;
use crate::guest::memory::Raced;

/// The known kernel trees.
const ADAPTERS: &[&dyn Adapter] = &[&ours::Ours];

/// Time limit for a reading for the chart, so that it does not hold up the scenario.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// A tier's counters since it was created, and its present state, in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CramCounts {
    /// Pages demoted to the tier.
    pub demoted: u64,
    /// Pages that a user moved to the tier.
    pub moved_in: u64,
    /// Pages migrated to ordinary memory.
    pub promoted: u64,
    /// Pages copied to ordinary memory for one of several processes that share them.
    pub copied: u64,
    /// Stores to write-protected pages.
    pub write_faults: u64,
    /// Pages that the tier refused.
    pub refused: u64,
    /// Pages freed.
    pub freed: u64,
    /// Freed pages whose last stores were written back from the processors' caches before the device was to scrub them.
    pub flushed: u64,
    /// Freed pages that wait to be scrubbed, now.
    pub held: u64,
    /// Pages scrubbed.
    pub scrubbed: u64,
    /// Batches in which pages were scrubbed.
    pub scrub_batches: u64,
    /// Pages scrubbed by the processor instead of the device.
    pub scrubbed_by_cpu: u64,
    /// Failed attempts of the device to scrub.
    pub scrub_errors: u64,
    /// Attempts that the device did not end in time; what it may still wipe is held until it has.
    pub scrub_stalls: u64,
    /// Pages mapped writable, now.
    pub writable: u64,
    /// Pages that lost write access.
    pub revoked: u64,
    /// Pages evicted to swap.
    pub evicted: u64,
    /// Pages that went to ordinary memory because a user moved them or the memory was removed.
    pub moved_out: u64,
    /// Pages lost to poison.
    pub poisoned: u64,
    /// Pages in use, now.
    pub used_pages: u64,
    /// Pages of the tier, now.
    pub managed_pages: u64,
    /// The pressure now, from 0 to 1000; at 1000 the tier takes no more pages.
    pub pressure: u64,
    /// How often the pressure changed.
    pub pressure_changes: u64,
}

/// The counters of the device's driver, and the node it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DriverCounts {
    /// Low-watermark interrupts: the device runs out of media.
    pub low_interrupts: u64,
    /// High-watermark interrupts: the device has media again.
    pub high_interrupts: u64,
    /// Reads of the device's occupancy.
    pub occupancy_reads: u64,
    /// Media operations Zero sent to the device.
    pub zero_commands: u64,
    /// Ranges in these operations.
    pub zero_ranges: u64,
    /// Failed operations.
    pub zero_errors: u64,
    /// The node.
    pub node: u32,
}

/// A setting of a tier or its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunable {
    /// The pressure, from 0 to 1000, until the driver changes it; at 1000 the tier takes no more pages.
    Pressure,
    /// The share of the used pages that may be mapped writable, in thousandths.
    WritablePermille,
    /// How many freed pages are scrubbed at once.
    ScrubBatch,
    /// The longest time that a freed page waits for a batch, in milliseconds.
    ScrubInterval,
    /// How often the driver reads the device's occupancy, in milliseconds; 0 is never.
    OccupancyInterval,
}

/// A trace event of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CramEvent {
    /// Pages arrived.
    Demote,
    /// Pages left because they were written.
    Promote,
    /// Pages were refused.
    Refuse,
    /// Pages were scrubbed.
    Scrub,
    /// The pressure changed.
    Pressure,
    /// A page was lost.
    Poison,
}

/// A kernel tree's names for files, counters and trace events.
pub(crate) trait Adapter: Sync {
    /// A shell line that fails if the guest's kernel is not of this tree.
    fn probe(&self) -> String;

    /// The module that makes a tier of the device.
    fn module(&self) -> &'static str;

    /// The sysfs folder of the device that the module's driver binds to, for a memory device: a glob that matches one path.
    fn bound_device(&self, memdev: &str) -> String;

    /// The folder of that driver: a glob that matches one path.
    fn driver_folder(&self) -> &'static str;

    /// The file that controls whether drivers on that bus bind automatically.
    fn autoprobe_file(&self) -> &'static str;

    /// The file with a tier's counters.
    fn counts_file(&self, node: u32) -> String;

    /// Parses that file.
    ///
    /// # Errors
    /// A counter is missing.
    fn counts(&self, text: &str) -> Result<CramCounts>;

    /// The file with the driver's counters for a memory device.
    fn driver_file(&self, memdev: &str) -> String;

    /// Parses that file.
    ///
    /// # Errors
    /// A counter is missing.
    fn driver_counts(&self, text: &str) -> Result<DriverCounts>;

    /// The file of a setting.
    fn tunable_file(&self, node: u32, memdev: &str, tunable: Tunable) -> String;

    /// A trace event, as `system:event`.
    fn event(&self, event: CramEvent) -> &'static str;

    /// The pressure of a node before and after, from a line of [`CramEvent::Pressure`]. None for another node.
    fn pressure_change(&self, line: &str, node: u32) -> Option<[u64; 2]>;
}

/// A shell line that fails if no adapter knows the CRAM of the guest's kernel.
pub(crate) fn probe() -> String {
    ADAPTERS.iter().map(|adapter| format!("{{ {}; }}", adapter.probe())).collect::<Vec<_>>().join(" || ")
}

/// A shell line that writes a memory device's name to a file of the driver: `bind` or `unbind`.
fn driver_line(adapter: &dyn Adapter, memdev: &str, file: &str) -> String {
    format!("cd {} && basename {} > {file}", adapter.driver_folder(), adapter.bound_device(memdev))
}

/// Parses a file of `NAME VALUE` lines. Ignores values that are not numbers.
fn numbers<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let pairs = pairs.filter_map(|(name, value)| Some((name.trim_end_matches(':'), value.trim().parse::<u64>().ok()?)));
    let map: BTreeMap<&str, u64> = pairs.collect();
    Ok(serde_json::from_value(serde_json::to_value(map)?)?)
}

/// A tier made from a device's memory.
#[derive(Clone)]
pub struct Cram {
    adapter: &'static dyn Adapter,
    memdev: String,
    /// The tier's node.
    pub node: u32,
}

impl Lab {
    /// Makes a tier from the first device's memory, waits until it is up, and samples its figures for the chart. All programs
    /// run in a cpuset cgroup from now on.
    pub fn cram(&mut self) -> Result<Cram> {
        self.cram_with("")
    }

    /// As [`Lab::cram`], with module parameters.
    pub fn cram_with(&mut self, parameters: &str) -> Result<Cram> {
        let adapter = self.cram_adapter()?;
        self.contain()?;
        self.load_module(adapter.module(), parameters)?;
        self.cram_of(0)
    }

    /// Makes a tier from each of these devices, in this order.
    pub fn crams(&mut self, devices: &[usize]) -> Result<Vec<Cram>> {
        let adapter = self.cram_adapter()?;
        self.contain()?;
        self.guest.write_file(adapter.autoprobe_file(), "0")?;
        self.load_module(adapter.module(), "")?;
        let tier = |lab: &mut Self, &device: &usize| {
            lab.sh(&driver_line(adapter, &lab.memdev(device)?, "bind"))?;
            lab.cram_of(device)
        };
        devices.iter().map(|device| tier(self, device)).collect()
    }

    /// The alias by which the kernel looks for the module that makes a tier from a device.
    pub fn cram_modalias(&self, device: usize) -> Result<String> {
        let folder = self.cram_adapter()?.bound_device(&self.memdev(device)?);
        Ok(self.sh(&format!("sed -n s/^MODALIAS=//p {folder}/uevent"))?.trim().to_owned())
    }

    /// Waits for the tier that the loaded driver makes from a device's memory, and samples its figures for the chart.
    pub fn cram_of(&mut self, device: usize) -> Result<Cram> {
        let cram = self.cram_up(self.cram_adapter()?, self.memdev(device)?)?;
        let what = cram.file();
        self.follow(&what, chart::figures(self.guest.clone(), &cram, device));
        Ok(cram)
    }

    fn cram_adapter(&self) -> Result<&'static dyn Adapter> {
        for adapter in ADAPTERS {
            if self.holds(&adapter.probe())? {
                return Ok(*adapter);
            }
        }
        bail!("this kernel has no CRAM; add Need::Cram to the scenario's needs")
    }

    /// Waits until the driver has made the tier.
    fn cram_up(&self, adapter: &'static dyn Adapter, memdev: String) -> Result<Cram> {
        let driver = adapter.driver_file(&memdev);
        self.guest.wait_path(&driver, LIMIT).with_context(|| {
            format!(
                "the driver made no tier from {memdev}; dmesg: {}",
                self.sh("dmesg | tail -n 15").unwrap_or_default()
            )
        })?;
        let node = adapter.driver_counts(&self.guest.read_text(&driver)?)?.node;
        let cram = Cram { adapter, memdev, node };
        self.guest.wait_path(&adapter.counts_file(node), LIMIT)?;
        cram.wait(self, "the tier to have memory", |counts| counts.managed_pages > 0)?;
        Ok(cram)
    }
}

impl Cram {
    /// The tier's counters.
    pub fn counts(&self, lab: &Lab) -> Result<CramCounts> {
        self.adapter.counts(&lab.guest.read_text(&self.adapter.counts_file(self.node))?)
    }

    /// The counters of the tier's driver.
    pub fn driver(&self, lab: &Lab) -> Result<DriverCounts> {
        self.adapter.driver_counts(&lab.guest.read_text(&self.adapter.driver_file(&self.memdev))?)
    }

    /// Changes a setting.
    pub fn set(&self, lab: &Lab, tunable: Tunable, value: u64) -> Result<()> {
        let file = self.adapter.tunable_file(self.node, &self.memdev, tunable);
        Ok(lab.guest.write_file(&file, value.to_string().as_str())?)
    }

    /// Waits until the counters satisfy `fits`, and returns them; the error names `what`.
    pub fn wait(&self, lab: &Lab, what: &str, fits: impl Fn(&CramCounts) -> bool) -> Result<CramCounts> {
        lab.wait_for(what, |lab| {
            let counts = self.counts(lab)?;
            Ok(fits(&counts).then_some(counts))
        })
        .with_context(|| format!("the tier has {:?}", self.counts(lab)))
    }

    /// Waits until all freed pages are scrubbed.
    pub fn settled(&self, lab: &Lab) -> Result<CramCounts> {
        self.wait(lab, "freed pages to be scrubbed", |counts| counts.held == 0)
    }

    /// Runs `action` while a program writes and reads pages, `rounds` times each, that go to the tier over and over. Returns the
    /// program's result, and how long the action took.
    pub fn under_load(
        &self,
        lab: &Lab,
        rounds: u64,
        limit: Duration,
        action: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<(Raced, Duration)> {
        const PAGES: u64 = 64;
        let before = self.counts(lab)?.moved_in;
        let mut program = lab.guest.memory()?;
        let racing = program.map_anywhere(PAGES * 4096)?;
        std::thread::scope(|scope| {
            let race = || program.race(racing.all(), (1, 1), rounds, self.node, limit);
            let race = std::thread::Builder::new().name("race".into()).spawn_scoped(scope, race)?;
            self.wait(lab, "the program to be at work", |now| now.moved_in > before + PAGES)?;
            let begin = Instant::now();
            action(lab)?;
            let took = begin.elapsed();
            Ok((race.join().map_err(|_| anyhow!("a thread panicked"))??, took))
        })
    }

    /// Removes the tier: its pages go elsewhere, and its memory becomes plain CXL memory again.
    ///
    /// # Errors
    /// The kernel refuses to unload the module.
    pub fn remove(&self, lab: &Lab) -> Result<(), GuestError> {
        lab.unload_module(self.adapter.module())
    }

    /// A shell line that unbinds its driver.
    pub fn unbind_line(&self) -> String {
        driver_line(self.adapter, &self.memdev, "unbind")
    }

    /// A shell line that binds its driver.
    pub fn bind_line(&self) -> String {
        driver_line(self.adapter, &self.memdev, "bind")
    }

    /// Waits until the tier is up again, for example after its driver was rebound.
    pub fn wait_up(&mut self, lab: &Lab) -> Result<()> {
        *self = lab.cram_up(self.adapter, self.memdev.clone())?;
        Ok(())
    }

    /// A trace event, as `system:event`.
    pub fn event(&self, event: CramEvent) -> &'static str {
        self.adapter.event(event)
    }

    /// Its driver's module.
    pub fn module(&self) -> &'static str {
        self.adapter.module()
    }

    /// The file with the tier's counters, which exists as long as the tier does.
    pub fn file(&self) -> String {
        self.adapter.counts_file(self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_among_other_lines() {
        let driver: DriverCounts =
            numbers("low_interrupts 3\nhigh_interrupts: 2\noccupancy_reads 9\nzero_commands 1\nzero_ranges 4\nzero_errors 0\nnode 1\nregion region0\nlater 5\n")
                .unwrap();
        assert_eq!((driver.low_interrupts, driver.high_interrupts, driver.node), (3, 2, 1));
        let error = numbers::<DriverCounts>("low_interrupts 3\n").unwrap_err().to_string();
        assert!(error.contains("high_interrupts"), "{error}");
    }
}
