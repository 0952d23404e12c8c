//! CRAM: the device's memory as a tier for cold pages, that is never written in place.
//!
//! A kernel tree with it has its own names for its files, counters and trace events. Those are said in an [`Adapter`] and
//! nowhere else; stories ask [`Lab::cram`] for the tier and get a [`Cram`]. To add a tree: a file in `cram/` with a type that
//! implements [`Adapter`], and its line in `ADAPTERS`.

mod chart;
mod ours;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{LIMIT, Lab};
use crate::guest::client::GuestError;
use crate::guest::memory::Raced;

/// The kernel trees that are known.
const ADAPTERS: &[&dyn Adapter] = &[&ours::Ours];

/// How long a reading for the chart may take: the story has the guest first.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// What a tier has done since it is there, in pages, and what it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CramCounts {
    /// Came by demotion.
    pub demoted: u64,
    /// Came because a user moved them.
    pub moved_in: u64,
    /// Left for ordinary memory, by migration.
    pub promoted: u64,
    /// Left for ordinary memory as a copy for one of those who share them.
    pub copied: u64,
    /// Stores to pages that are protected from them.
    pub write_faults: u64,
    /// Were to come and were refused.
    pub refused: u64,
    /// Were freed.
    pub freed: u64,
    /// Are freed and wait to be scrubbed, now.
    pub held: u64,
    /// Were scrubbed.
    pub scrubbed: u64,
    /// How many times pages were scrubbed.
    pub scrub_batches: u64,
    /// Were scrubbed by the processor, not by the device.
    pub scrubbed_by_cpu: u64,
    /// How many times the device could not scrub.
    pub scrub_errors: u64,
    /// Are mapped writable, now.
    pub writable: u64,
    /// Were mapped writable and are so no longer.
    pub revoked: u64,
    /// Were evicted to swap.
    pub evicted: u64,
    /// Left for ordinary memory because a user moved them, or the memory was taken away.
    pub moved_out: u64,
    /// Were lost to poison.
    pub poisoned: u64,
    /// Are used, now.
    pub used_pages: u64,
    /// Are there, now.
    pub managed_pages: u64,
    /// The pressure now: 0 to 1000, at which nothing more comes in.
    pub pressure: u64,
    /// How often it changed.
    pub pressure_changes: u64,
}

/// What the driver of the device has counted, and what it knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DriverCounts {
    /// Interrupts that said that the device runs out of media.
    pub low_interrupts: u64,
    /// Interrupts that said that it has media again.
    pub high_interrupts: u64,
    /// How often it asked the device what it has.
    pub occupancy_reads: u64,
    /// Media operations Zero that it gave.
    pub zero_commands: u64,
    /// Ranges that these were for.
    pub zero_ranges: u64,
    /// Those that failed.
    pub zero_errors: u64,
    /// The node.
    pub node: u32,
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunable {
    /// The pressure, until the driver's next word: 0 to 1000, at which nothing more comes in.
    Pressure,
    /// The share of the used pages that may be mapped writable, in thousandths.
    WritablePermille,
    /// How many freed pages are scrubbed at once.
    ScrubBatch,
    /// How long a freed page waits for others at most, milliseconds.
    ScrubInterval,
    /// How often the driver asks the device what it has, milliseconds; 0 is never.
    OccupancyInterval,
}

/// What is told in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CramEvent {
    /// Pages came.
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

/// A kernel tree's names.
pub(in crate::scenario) trait Adapter: Sync {
    /// A shell line that fails in a guest whose kernel is not of this tree.
    fn probe(&self) -> String;

    /// The module that makes a tier of the device.
    fn module(&self) -> &'static str;

    /// The folder in sysfs of what that module's driver binds to, for a memory device: a glob that one path fits.
    fn bound_device(&self, memdev: &str) -> String;

    /// The folder of that driver: a glob that one path fits.
    fn driver_folder(&self) -> &'static str;

    /// The file that says whether drivers of that bus bind by themselves.
    fn autoprobe_file(&self) -> &'static str;

    /// The file with what a tier has done.
    fn counts_file(&self, node: u32) -> String;

    /// What that file says.
    ///
    /// # Errors
    /// It says something else.
    fn counts(&self, text: &str) -> Result<CramCounts>;

    /// The file with what the driver of a memory device has counted.
    fn driver_file(&self, memdev: &str) -> String;

    /// What that file says.
    ///
    /// # Errors
    /// It says something else.
    fn driver_counts(&self, text: &str) -> Result<DriverCounts>;

    /// The file in which something is set.
    fn tunable_file(&self, node: u32, memdev: &str, tunable: Tunable) -> String;

    /// A trace event, as `system:event`.
    fn event(&self, event: CramEvent) -> &'static str;

    /// What a line of [`CramEvent::Pressure`] says of a node: the pressure before and after. None if it is another's.
    fn pressure_change(&self, line: &str, node: u32) -> Option<[u64; 2]>;
}

/// A shell line that fails in a guest whose kernel has no CRAM that an adapter knows.
pub(in crate::scenario) fn probe() -> String {
    ADAPTERS.iter().map(|adapter| format!("{{ {}; }}", adapter.probe())).collect::<Vec<_>>().join(" || ")
}

/// A shell line that writes a memory device's name to a file of the driver: `bind` or `unbind`.
fn tell_driver(adapter: &dyn Adapter, memdev: &str, file: &str) -> String {
    format!("cd {} && basename {} > {file}", adapter.driver_folder(), adapter.bound_device(memdev))
}

/// What a file of `NAME VALUE` lines says. Values that are no numbers are left out.
fn numbers<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    let pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let pairs = pairs.filter_map(|(name, value)| Some((name.trim_end_matches(':'), value.trim().parse::<u64>().ok()?)));
    let map: BTreeMap<&str, u64> = pairs.collect();
    Ok(serde_json::from_value(serde_json::to_value(map)?)?)
}

/// A tier made of a device's memory.
#[derive(Clone)]
pub struct Cram {
    adapter: &'static dyn Adapter,
    memdev: String,
    /// Its node.
    pub node: u32,
}

impl Lab {
    /// Makes a tier of the first device's memory, waits until it is there, and has its figures followed for the chart.
    pub fn cram(&mut self) -> Result<Cram> {
        self.cram_with("")
    }

    /// The same with parameters of the module.
    pub fn cram_with(&mut self, parameters: &str) -> Result<Cram> {
        let adapter = self.cram_adapter()?;
        self.load_module(adapter.module(), parameters)?;
        self.cram_of(0)
    }

    /// A tier of each of these devices, made in this order.
    pub fn crams(&mut self, devices: &[usize]) -> Result<Vec<Cram>> {
        let adapter = self.cram_adapter()?;
        self.guest.write_file(adapter.autoprobe_file(), "0")?;
        self.load_module(adapter.module(), "")?;
        let tier = |lab: &mut Self, &device: &usize| {
            lab.sh(&tell_driver(adapter, &lab.memdev(device)?, "bind"))?;
            lab.cram_of(device)
        };
        devices.iter().map(|device| tier(self, device)).collect()
    }

    /// The name by which the kernel looks for the module that makes a tier of a device.
    pub fn cram_modalias(&self, device: usize) -> Result<String> {
        let folder = self.cram_adapter()?.bound_device(&self.memdev(device)?);
        Ok(self.sh(&format!("sed -n s/^MODALIAS=//p {folder}/uevent"))?.trim().to_owned())
    }

    /// The tier that the loaded driver makes of a device's memory, as soon as it is there. Its figures are followed for the
    /// chart.
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
        bail!("this kernel has no CRAM: say Need::Cram in the scenario's needs")
    }

    /// Waits until the driver has made the tier.
    fn cram_up(&self, adapter: &'static dyn Adapter, memdev: String) -> Result<Cram> {
        let driver = adapter.driver_file(&memdev);
        self.guest.wait_path(&driver, LIMIT).with_context(|| {
            format!(
                "the driver does not make a tier of {memdev}; dmesg: {}",
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
    /// What it has done, and what it is now.
    pub fn counts(&self, lab: &Lab) -> Result<CramCounts> {
        self.adapter.counts(&lab.guest.read_text(&self.adapter.counts_file(self.node))?)
    }

    /// What its driver has counted.
    pub fn driver(&self, lab: &Lab) -> Result<DriverCounts> {
        self.adapter.driver_counts(&lab.guest.read_text(&self.adapter.driver_file(&self.memdev))?)
    }

    /// Sets something.
    pub fn set(&self, lab: &Lab, tunable: Tunable, value: u64) -> Result<()> {
        let file = self.adapter.tunable_file(self.node, &self.memdev, tunable);
        Ok(lab.guest.write_file(&file, value.to_string().as_str())?)
    }

    /// Waits until what it has done and is fits; `what` is for the error. Returns it.
    pub fn wait(&self, lab: &Lab, what: &str, fits: impl Fn(&CramCounts) -> bool) -> Result<CramCounts> {
        lab.wait_for(what, |lab| {
            let counts = self.counts(lab)?;
            Ok(fits(&counts).then_some(counts))
        })
        .with_context(|| format!("the tier has {:?}", self.counts(lab)))
    }

    /// Waits until all pages that were freed are scrubbed.
    pub fn settled(&self, lab: &Lab) -> Result<CramCounts> {
        self.wait(lab, "what was freed to be scrubbed", |counts| counts.held == 0)
    }

    /// Does something while a program writes and reads pages, `rounds` times each, that go to the tier over and over. Gives what
    /// came of the program, and how long the deed took.
    pub fn under_load(
        &self,
        lab: &Lab,
        rounds: u64,
        limit: Duration,
        deed: impl FnOnce(&Lab) -> Result<()>,
    ) -> Result<(Raced, Duration)> {
        const PAGES: u64 = 64;
        let before = self.counts(lab)?.moved_in;
        let mut program = lab.guest.memory()?;
        let racing = program.map_anywhere(PAGES * 4096)?;
        std::thread::scope(|scope| {
            let race = scope.spawn(|| program.race(racing.all(), (1, 1), rounds, self.node, limit));
            self.wait(lab, "the program to be at work", |now| now.moved_in > before + PAGES)?;
            let begin = Instant::now();
            deed(lab)?;
            let took = begin.elapsed();
            Ok((race.join().map_err(|_| anyhow!("a thread panicked"))??, took))
        })
    }

    /// Takes the tier apart: its pages go elsewhere, its memory is plain CXL memory again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, lab: &Lab) -> Result<(), GuestError> {
        lab.unload_module(self.adapter.module())
    }

    /// A shell line that unbinds its driver.
    pub fn unbind_line(&self) -> String {
        tell_driver(self.adapter, &self.memdev, "unbind")
    }

    /// A shell line that binds its driver.
    pub fn bind_line(&self) -> String {
        tell_driver(self.adapter, &self.memdev, "bind")
    }

    /// Waits until the tier is there again, for instance after its driver was bound again.
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

    /// The file with what it has done: there as long as the tier is.
    pub fn file(&self) -> String {
        self.adapter.counts_file(self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_name_whatever_else_there_is() {
        let driver: DriverCounts =
            numbers("low_interrupts 3\nhigh_interrupts: 2\noccupancy_reads 9\nzero_commands 1\nzero_ranges 4\nzero_errors 0\nnode 1\nregion region0\nlater 5\n")
                .unwrap();
        assert_eq!((driver.low_interrupts, driver.high_interrupts, driver.node), (3, 2, 1));
        let error = numbers::<DriverCounts>("low_interrupts 3\n").unwrap_err().to_string();
        assert!(error.contains("high_interrupts"), "{error}");
    }
}
