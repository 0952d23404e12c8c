//! Plays scenarios: sets the lab up, watches the clock, compares facts, takes everything down.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Signal, pidfd_send_signal};

use super::{
    Facts, Scenario,
    lab::Lab,
    report::{Outcome, Verdict},
    snapshot,
};
use crate::provision::Provisioned;

/// How scenarios are played.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// A folder for each scenario's console, device log, QEMU command line and facts.
    pub artifacts: PathBuf,
}

impl Default for RunOptions {
    /// In the workspace's `target`.
    fn default() -> Self {
        Self { artifacts: Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("cxl-cram") }
    }
}

/// Plays one scenario to its end; whatever happens is in the outcome.
pub fn play(scenario: &'static Scenario, provisioned: &Provisioned, options: &RunOptions) -> Outcome {
    let begun = Instant::now();
    let artifacts = options.artifacts.join(scenario.name);
    let progress = spinner(scenario.name);
    let mut outcome = Outcome {
        scenario,
        verdict: Verdict::Passed,
        facts: Facts::default(),
        figures: Vec::new(),
        elapsed: Duration::ZERO,
        artifacts: artifacts.clone(),
    };
    let told = clear(&artifacts).and_then(|()| Lab::set_up(scenario, provisioned, &artifacts, &progress)).and_then(
        |mut lab| {
            let told = told_in_time(scenario, &mut lab);
            let findings = lab.take_down(told);
            (outcome.facts, outcome.figures) = (findings.facts, findings.figures);
            findings.verdict
        },
    );
    progress.finish_and_clear();
    let agreed = told.and_then(|()| snapshot::check(scenario.name, scenario.story, &outcome.facts).map_err(Error::msg));
    if let Err(error) = agreed {
        outcome.verdict = Verdict::Failed(format!("{error:#}"));
    }
    outcome.elapsed = begun.elapsed();
    outcome
}

/// Makes an artifact folder, without what an earlier run left there.
fn clear(artifacts: &Path) -> Result<()> {
    if artifacts.exists() {
        fs::remove_dir_all(artifacts).with_context(|| format!("cannot clear {}", artifacts.display()))?;
    }
    fs::create_dir_all(artifacts).with_context(|| format!("cannot make {}", artifacts.display()))
}

/// Tells the story. At the limit QEMU is killed, which ends every wait for the guest.
fn told_in_time(scenario: &Scenario, lab: &mut Lab) -> Result<()> {
    let qemu = lab.machine.process().handle()?;
    let (done, is_done) = mpsc::channel::<()>();
    let limit = scenario.limit;
    let watchdog = thread::spawn(move || {
        let late = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = pidfd_send_signal(&qemu, Signal::KILL);
        }
        late
    });
    let told = (scenario.tell)(lab);
    drop(done);
    let late = watchdog.join().unwrap_or(false);
    let told = if late { Err(anyhow!("took longer than {:?}, the scenario's limit", scenario.limit)) } else { told };
    told.with_context(|| format!("step \"{}\"", lab.current_step()))
}

/// What moves on the terminal while a scenario plays: its name and its step.
fn spinner(name: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed:>5} {prefix}: {msg}")
            .unwrap_or(ProgressStyle::default_spinner()),
    );
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
