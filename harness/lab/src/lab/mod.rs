//! The lab in which a scenario runs: a guest on its devices, and a record of the findings.
//!
//! The files beside this one hold what a scenario can do, each for one subject.

mod aer;
pub mod catalog;
pub mod cgroup;
pub mod corpus;
pub mod cram;
pub mod events;
pub(crate) mod kselftest;
mod machine;
mod machine_check;
mod mailbox;
mod module;
pub mod need;
mod node;
pub mod normalise;
mod performance;
pub mod private_node;
pub mod region;
pub mod scenario;
mod selftests;
mod shell;
mod trace;
mod vm;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use tempfile::TempDir;

use self::machine_check::MachineChecks;
use self::need::Need;
use self::normalise::{Normaliser, Varies};
pub use self::region::Region;
use self::scenario::Scenario;
use crate::guest::client::Guest;
use crate::machine::boot::Machine;
use crate::machine::config::MachineConfig;
use crate::machine::launch::{Launch, Launched, launch};
use crate::machine::learn::Bar;
use crate::process::interrupt::interrupted;
use crate::provision::Provisioned;
use crate::record::facts::{Facts, Figure};
use crate::record::recorder::Recorder;
use crate::record::timeline::Timeline;
use crate::rig::device::Device;
use crate::rig::stage::{BOOT_LIMIT, Overrides, Stage, ended};
use crate::rig::watchdog::Watched;

/// Default time limit for a program in the guest.
const LIMIT: Duration = Duration::from_secs(30);

/// A guest on its devices.
pub struct Lab {
    /// The guest.
    pub guest: Guest,
    /// The guest's kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The machine that the guest runs on.
    pub machine: Machine,
    /// The devices, in the scenario's order.
    pub devices: Vec<Device>,
    /// Where the firmware put each device's window.
    pub bars: Vec<Bar>,
    machine_checks: Option<MachineChecks>,
    /// The configuration of the guest's kernel, if the harness knows it.
    kernel_config: Option<String>,
    config: MachineConfig,
    launch: Launch,
    facts: Facts,
    figures: Vec<Figure>,
    recorder: Recorder,
    watched: Watched,
    progress: ProgressBar,
    /// The devices' sockets. Removed last.
    _run: TempDir,
}

/// The results that remain when a lab is taken down.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) kernel: String,
    pub(super) facts: Facts,
    pub(super) figures: Vec<Figure>,
    pub(super) timeline: Timeline,
    /// The console's last lines.
    pub(super) console: Vec<String>,
    pub(super) verdict: Result<()>,
}

impl Lab {
    /// Starts the devices, finds where their windows are, and boots the guest.
    pub(super) fn set_up(
        scenario: &Scenario,
        overrides: &Overrides,
        provisioned: &Provisioned,
        artifacts: &Path,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let mut recorder = Recorder::default();
        progress.set_message("starting the device");
        let Stage { mut devices, machine: config, launch: boot, run } =
            Stage::set(scenario.devices, &scenario.machine, overrides, provisioned, artifacts)?;
        devices.iter().for_each(|device| recorder.watch(device.control()));
        progress.set_message("booting the guest");
        let launched = launch(&config, &boot);
        let Launched { guest, hello, machine, learned, .. } =
            launched.map_err(|error| ended(&mut devices).map_or_else(|| error.into(), |ended| anyhow!(ended)))?;
        let mut lab = Self {
            guest,
            kernel: hello.kernel,
            watched: Arc::new(Mutex::new(machine.hang_probe())),
            machine,
            devices,
            bars: learned.bars,
            machine_checks: None,
            kernel_config: provisioned.kernel.config.as_ref().and_then(|file| std::fs::read_to_string(file).ok()),
            config,
            launch: boot,
            facts: Facts::default(),
            figures: Vec::new(),
            recorder,
            progress: progress.clone(),
            _run: run,
        };
        lab.follow_poison()?;
        Ok(lab)
    }

    /// The first device.
    pub fn device(&self) -> &Device {
        // A machine without a device never gets a lab.
        &self.devices[0]
    }

    /// The configuration of the guest's kernel, if the harness knows it.
    pub(super) fn kernel_config(&self) -> Option<&str> {
        self.kernel_config.as_deref()
    }

    /// Whether the guest has something that is not in every kernel.
    pub fn meets(&self, need: Need) -> Result<bool> {
        Ok(self.unmet(&[need])?.is_empty())
    }

    /// The needs that the guest does not meet.
    pub(super) fn unmet(&self, needs: &[Need]) -> Result<Vec<Need>> {
        need::unmet(self, needs)
    }

    /// Begins a step: shown while it runs, marked in the report, and named if it fails.
    pub fn step(&mut self, what: &str) {
        self.recorder.mark(what);
        self.progress.set_message(what.to_owned());
    }

    /// Begins an act of a scenario. The report shows the charts of two acts side by side.
    pub fn act(&mut self, what: &str) {
        self.recorder.act(what);
    }

    /// The machine, for a watchdog.
    pub(super) fn watched(&self) -> Watched {
        Arc::clone(&self.watched)
    }

    /// The current step.
    pub(super) fn current_step(&self) -> &str {
        self.recorder.step()
    }

    /// Records a fact for the snapshot, which must be the same in every run. Normalises fields that are known to vary.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        self.fact_but(name, value, &[]);
    }

    /// Records a fact, also normalising these fields.
    pub fn fact_but(&mut self, name: &str, value: impl Serialize, varies: &[(&str, Varies)]) {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.facts.push(name, self.normaliser().value(value, varies));
    }

    /// The normaliser for this lab's windows.
    fn normaliser(&self) -> Normaliser {
        let window =
            |(bar, device): (&Bar, &crate::machine::config::Device)| bar.address..bar.address + device.capacity;
        Normaliser { windows: self.bars.iter().zip(&self.config.devices).map(window).collect() }
    }

    /// Records a measured figure for the report.
    pub fn figure(&mut self, name: &str, value: impl ToString) {
        self.figures.push(Figure { name: name.to_owned(), value: value.to_string() });
    }

    /// Adds a sample to a series of the report's chart, at the present time. Series named `PANEL: LINE` share a panel.
    pub fn sample(&mut self, series: &str, value: f64) {
        self.recorder.note(series, value);
    }

    /// Samples figures, by series, until the scenario ends. Series named `PANEL: LINE` share a panel. Does nothing if `what` is
    /// sampled already.
    pub(crate) fn follow(&mut self, what: &str, read: impl FnMut() -> Result<Vec<(String, f64)>> + Send + 'static) {
        self.recorder.follow(what, read);
    }

    /// Waits until a condition holds; the error names `what`.
    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        self.wait_for(what, |lab| Ok(holds(lab)?.then_some(())))
    }

    /// Waits until `look` returns something; the error names `what`.
    pub(super) fn wait_for<T>(&self, what: &str, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        let limit = self.guest.patient(LIMIT);
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if interrupted() {
                bail!("interrupted");
            }
            ensure!(Instant::now() < end, "waited {} s for {what}", limit.as_secs_f64().round());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the guest and the devices, and combines their results with the scenario's.
    pub(super) fn take_down(mut self, verdict: Result<()>) -> Findings {
        self.progress.set_message("taking down");
        // Take the report before the shutdown, so that its tail shows the scenario's end.
        let report = self.machine.health().report();
        let checked = self.machine_checks.take().map_or(Ok(()), MachineChecks::finish);
        let timeline = std::mem::take(&mut self.recorder).finish();
        self.machine.shut_down(BOOT_LIMIT);
        let mut stopped = checked;
        for device in self.devices.iter_mut().filter(|device| !device.killed()) {
            stopped = stopped.and(device.stop());
        }
        let verdict =
            verdict.and_then(|()| if report.troubles.is_empty() { stopped } else { Err(anyhow!("{report}")) });
        let Self { kernel, facts, figures, .. } = self;
        Findings { kernel, facts, figures, timeline, console: report.console, verdict }
    }
}
