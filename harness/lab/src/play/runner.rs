//! Runs one scenario: sets the lab up, enforces the limit, compares facts, takes everything down.

use std::{
    any::Any,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use cxl_cram_device::serve::WindowKind;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::artifacts;
use super::snapshot::Snapshot;
use crate::guest::client::GuestError;
use crate::lab::Lab;
use crate::lab::catalog::Catalog;
use crate::lab::need::Need;
use crate::lab::scenario::Scenario;
use crate::process::interrupt::interrupted;
use crate::provision::Provisioned;
use crate::report::{Outcome, Verdict};
use crate::rig::stage::{Overrides, ended, host_at_fault};
use crate::rig::watchdog::Watchdog;

/// Options for running scenarios.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The folder of the snapshots.
    pub snapshots: PathBuf,
    /// A folder for each scenario's console, device log, QEMU command line and facts.
    pub artifacts: PathBuf,
    /// The user's changes to every machine.
    pub overrides: Overrides,
    /// How many guests run at once; by default, as many as the machine has room for.
    pub jobs: Option<NonZero<usize>>,
    /// Compare with snapshots of this kernel's release only, and create them.
    pub own_snapshots: bool,
}

impl RunOptions {
    /// The catalog's folders, and no changes.
    pub fn new(catalog: &Catalog) -> Self {
        Self {
            snapshots: catalog.snapshot_folder(),
            artifacts: catalog.artifact_folder(),
            overrides: Overrides::default(),
            jobs: None,
            own_snapshots: false,
        }
    }
}

/// Why a scenario may be late.
const TRAPPED: &str = "with --window trap, which slows every access to the device";

/// How a scenario that did not fail ended.
enum Completion {
    Finished,
    /// The guest lacks these.
    Unmet(Vec<Need>),
}

/// Runs one scenario to its end. Every failure ends up in the outcome.
pub fn play(
    scenario: &'static Scenario,
    provisioned: &Provisioned,
    options: &RunOptions,
    progress: &MultiProgress,
) -> Outcome {
    let begun = Instant::now();
    let folder = options.artifacts.join(scenario.name);
    let progress = spinner(scenario.name, progress);
    let kernel = provisioned.kernel.version.clone();
    let mut outcome = Outcome { kernel, artifacts: folder.clone(), ..Outcome::of(scenario) };
    let completion = artifacts::claim_empty(&folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| Lab::set_up(scenario, &options.overrides, provisioned, &folder, &progress))
        .inspect_err(|error| outcome.host_at_fault = host_at_fault(error))
        .and_then(|mut lab| {
            let (completion, verdict) = match run_within_limit(scenario, &options.overrides, &mut lab) {
                Ok(completion) => (Some(completion), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let findings = lab.take_down(verdict);
            outcome.kernel = findings.kernel;
            (outcome.facts, outcome.figures) = (findings.facts, findings.figures);
            (outcome.timeline, outcome.console) = (findings.timeline, findings.console);
            findings.verdict.map(|()| completion.unwrap_or(Completion::Finished))
        });
    progress.finish_and_clear();
    let snapshot = Snapshot::of(&options.snapshots, scenario.name, &outcome.kernel, options.own_snapshots);
    outcome.verdict = match completion {
        _ if interrupted() => Verdict::Interrupted,
        Ok(Completion::Finished) => match snapshot.check(scenario.story, &outcome.facts) {
            Ok(()) => Verdict::Passed,
            Err(differs) => {
                let verdict = Verdict::Failed(differs.to_string());
                outcome.difference = Some(differs.difference);
                verdict
            }
        },
        Ok(Completion::Unmet(needs)) => {
            let needs: Vec<_> = needs.iter().map(Need::to_string).collect();
            Verdict::Skipped(format!("the guest lacks {}", needs.join(", ")))
        }
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    outcome.files = artifacts::files(&folder);
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

/// Runs the steps under a watchdog for the scenario's limit.
fn run_within_limit(scenario: &Scenario, overrides: &Overrides, lab: &mut Lab) -> Result<Completion> {
    let lacking = lab.unmet(scenario.needs)?;
    if !lacking.is_empty() {
        return Ok(Completion::Unmet(lacking));
    }
    let limit = lab.guest.patient(scenario.limit);
    let watchdog = Watchdog::set(lab.watched(), limit)?;
    // A panic in a scenario is that scenario's failure; the lab must still be taken down.
    let ran = catch_unwind(AssertUnwindSafe(|| (scenario.run)(lab)))
        .unwrap_or_else(|panic| Err(anyhow!("the scenario panicked: {}", panic_message(&*panic))));
    let late = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(GuestError::TimedOut { .. }));
    let (ran, late) = match (watchdog.called_off(), ran) {
        (Some(where_it_hung), _) => {
            let limit = limit.as_secs_f64().round();
            (Err(anyhow!("took longer than {limit} s, the scenario's limit\n{where_it_hung}")), true)
        }
        (None, Err(error)) => {
            let late = late(&error);
            // A device that has ended is the cause; errors from the guest and QEMU only follow from it.
            (Err(ended(&mut lab.devices).map_or(error, |ended| anyhow!(ended))), late)
        }
        (None, ran) => (ran, false),
    };
    let ran = if late && is_trapped(scenario, overrides) { ran.context(TRAPPED) } else { ran };
    ran.map(|()| Completion::Finished).with_context(|| format!("step \"{}\"", lab.current_step()))
}

/// Whether the user chose the trapping window, which turns every access into a message; limits do not allow for that.
fn is_trapped(scenario: &Scenario, overrides: &Overrides) -> bool {
    let trapped = |more: &[String]| {
        let windows = scenario.devices.iter().filter_map(|device| Some(device.options(more).ok()?.window));
        windows.into_iter().any(|window| window == WindowKind::Trap)
    };
    trapped(&overrides.device_args) && !trapped(&[])
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// The spinner on the terminal while a scenario runs: its name and its step.
pub(super) fn spinner(name: &str, progress: &MultiProgress) -> ProgressBar {
    let bar = progress.add(ProgressBar::new_spinner());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed:>5} {prefix}: {wide_msg}")
            .unwrap_or(ProgressStyle::default_spinner()),
    );
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
