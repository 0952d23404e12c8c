//! The lab a story is told on: a guest on its devices, and a place for what is found out.
//!
//! What a story can do is in the files beside this one, by what it is done to.

mod aer;
pub(super) mod cgroup;
pub(super) mod cram;
mod machine;
mod machine_check;
mod mailbox;
mod module;
mod node;
mod performance;
pub(super) mod private_node;
mod region;
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
pub use self::region::Region;
use super::{
    Device, Facts, Figure, Need, Overrides, Scenario, Stage, Timeline, Varies,
    need::{self},
    normalise::Normaliser,
    recorder::Recorder,
    watchdog::Watched,
};
use crate::{
    guest::client::Guest,
    interrupt::interrupted,
    machine::{
        boot::Machine,
        config::MachineConfig,
        launch::{Launch, Launched, launch},
        learn::Bar,
    },
    provision::Provisioned,
};

/// How long a program in the guest may take, unless a step says otherwise.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a guest may take to boot, and to switch itself off.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// A guest on its devices.
pub struct Lab {
    /// The guest.
    pub guest: Guest,
    /// Its kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The machine it runs on.
    pub machine: Machine,
    /// The devices, in the scenario's order.
    pub devices: Vec<Device>,
    /// Where the firmware put each device's window.
    pub bars: Vec<Bar>,
    machine_checks: Option<MachineChecks>,
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

/// What is left when a lab is taken down.
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
    /// Starts the devices, learns where their windows are, boots the guest.
    pub(super) fn set_up(
        scenario: &Scenario,
        overrides: &Overrides,
        provisioned: &Provisioned,
        artifacts: &Path,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let mut recorder = Recorder::default();
        progress.set_message("starting the device");
        let Stage { devices, machine: config, launch: boot, run } =
            Stage::set(scenario.devices, &scenario.machine, overrides, provisioned, artifacts)?;
        devices.iter().for_each(|device| recorder.watch(device.control()));
        progress.set_message("booting the guest");
        let Launched { guest, hello, machine, learnt, .. } = launch(&config, &boot)?;
        let mut lab = Self {
            guest,
            kernel: hello.kernel,
            watched: Arc::new(Mutex::new(machine.witness())),
            machine,
            devices,
            bars: learnt.bars,
            machine_checks: None,
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

    /// The device, in a story of one.
    pub fn device(&self) -> &Device {
        // A machine without a device is refused before there is a lab.
        &self.devices[0]
    }

    /// Those of the needs that the guest does not meet.
    pub(super) fn unmet(&self, needs: &[Need]) -> Result<Vec<Need>> {
        need::unmet(self, needs)
    }

    /// Begins a step of the story: shown while it lasts, marked in the report, and named if it fails.
    pub fn step(&mut self, what: &str) {
        self.recorder.mark(what);
        self.progress.set_message(what.to_owned());
    }

    /// Begins an act of a story that is told in several. Where there are two, their charts stand side by side in the report.
    pub fn act(&mut self, what: &str) {
        self.recorder.act(what);
    }

    /// The machine it plays on, for a watchdog.
    pub(super) fn watched(&self) -> Watched {
        Arc::clone(&self.watched)
    }

    /// The step now.
    pub(super) fn current_step(&self) -> &str {
        self.recorder.step()
    }

    /// States a fact for the snapshot: it must be the same in every run. Fields that are known to vary are normalised.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        self.fact_but(name, value, &[]);
    }

    /// States a fact of which these fields vary too.
    pub fn fact_but(&mut self, name: &str, value: impl Serialize, varies: &[(&str, Varies)]) {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.facts.push(name, self.normaliser().value(value, varies));
    }

    /// What puts words in the place of what varies.
    fn normaliser(&self) -> Normaliser {
        let window =
            |(bar, device): (&Bar, &crate::machine::config::Device)| bar.address..bar.address + device.capacity;
        Normaliser { windows: self.bars.iter().zip(&self.config.devices).map(window).collect() }
    }

    /// States a measured figure for the report.
    pub fn figure(&mut self, name: &str, value: impl ToString) {
        self.figures.push(Figure { name: name.to_owned(), value: value.to_string() });
    }

    /// Notes a value now for a chart of the report: one series a name. `PANEL: LINE` is a line of a panel that it shares with
    /// others.
    pub fn sample(&mut self, series: &str, value: f64) {
        self.recorder.note(series, value);
    }

    /// Has figures read now and again until the story ends, by the names of their series. `PANEL: LINE` is a line of a panel
    /// that it shares with others. What is followed already is not followed twice.
    pub(in crate::scenario) fn follow(
        &mut self,
        what: &str,
        read: impl FnMut() -> Result<Vec<(String, f64)>> + Send + 'static,
    ) {
        self.recorder.follow(what, read);
    }

    /// Waits until something holds on the host; `what` is for the error.
    pub fn wait(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        self.wait_for(what, |lab| Ok(holds(lab)?.then_some(())))
    }

    /// Waits until there is something to return; `what` is for the error.
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
            ensure!(Instant::now() < end, "waited {limit:?} for {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends guest and devices, and joins their ends to how the story went.
    pub(super) fn take_down(mut self, told: Result<()>) -> Findings {
        self.progress.set_message("taking down");
        // Taken before the machine is shut down: the tail shows the story's end, not the shutdown.
        let report = self.machine.health().report();
        let checked = self.machine_checks.take().map_or(Ok(()), MachineChecks::finish);
        let timeline = std::mem::take(&mut self.recorder).finish();
        self.machine.shut_down(BOOT_LIMIT);
        let mut stopped = checked;
        for device in self.devices.iter_mut().filter(|device| !device.killed()) {
            stopped = stopped.and(device.stop());
        }
        let verdict = told.and_then(|()| if report.troubles.is_empty() { stopped } else { Err(anyhow!("{report}")) });
        let Self { kernel, facts, figures, .. } = self;
        Findings { kernel, facts, figures, timeline, console: report.console, verdict }
    }
}
