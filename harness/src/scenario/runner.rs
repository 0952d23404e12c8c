//! Plays one scenario: sets the lab up, watches the clock, compares facts, takes everything down.

use std::{
    any::Any,
    fs,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{
    Facts, Need, Overrides, Scenario, Timeline, Watchdog,
    lab::Lab,
    report::{Outcome, Verdict},
    snapshot::Snapshot,
};
use crate::{interrupt::interrupted, provision::Provisioned};

/// How scenarios are played.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// A folder for each scenario's console, device log, QEMU command line and facts.
    pub artifacts: PathBuf,
    /// What the user changes of every machine.
    pub overrides: Overrides,
    /// How many at once; otherwise as many as the machine has room for.
    pub jobs: Option<NonZero<usize>>,
    /// Compare with, and make, snapshots of this kernel's release.
    pub own_snapshots: bool,
}

impl Default for RunOptions {
    /// In the workspace's `target`.
    fn default() -> Self {
        Self {
            artifacts: Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("cxl-cram"),
            overrides: Overrides::default(),
            jobs: None,
            own_snapshots: false,
        }
    }
}

/// How a story ended that did not fail.
enum Told {
    ToTheEnd,
    /// The guest lacks what it needs.
    Lacking(Vec<Need>),
}

/// Plays one scenario to its end; whatever happens is in the outcome.
pub fn play(
    scenario: &'static Scenario,
    provisioned: &Provisioned,
    options: &RunOptions,
    progress: &MultiProgress,
) -> Outcome {
    let begun = Instant::now();
    let artifacts = options.artifacts.join(scenario.name);
    let progress = spinner(scenario.name, progress);
    let mut outcome = Outcome {
        name: scenario.name.to_owned(),
        story: scenario.story.to_owned(),
        kernel: provisioned.kernel.version.clone(),
        verdict: Verdict::Passed,
        facts: Facts::default(),
        figures: Vec::new(),
        difference: None,
        timeline: Timeline::default(),
        console: Vec::new(),
        seconds: 0.0,
        artifacts: artifacts.clone(),
        files: Vec::new(),
    };
    let told = clear(&artifacts)
        .and_then(|()| Lab::set_up(scenario, &options.overrides, provisioned, &artifacts, &progress))
        .and_then(|mut lab| {
            let told = told_in_time(scenario, &mut lab);
            let (told, ended) = match told {
                Ok(told) => (Some(told), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let findings = lab.take_down(ended);
            outcome.kernel = findings.kernel;
            (outcome.facts, outcome.figures) = (findings.facts, findings.figures);
            (outcome.timeline, outcome.console) = (findings.timeline, findings.console);
            findings.verdict.map(|()| told.unwrap_or(Told::ToTheEnd))
        });
    progress.finish_and_clear();
    let snapshot = Snapshot::of(scenario.name, &outcome.kernel, options.own_snapshots);
    outcome.verdict = match told {
        _ if interrupted() => Verdict::Failed("interrupted".to_owned()),
        Ok(Told::ToTheEnd) => match snapshot.check(scenario.story, &outcome.facts) {
            Ok(()) => Verdict::Passed,
            Err(differs) => {
                let verdict = Verdict::Failed(differs.to_string());
                outcome.difference = differs.difference;
                verdict
            }
        },
        Ok(Told::Lacking(needs)) => {
            let needs: Vec<_> = needs.iter().map(Need::to_string).collect();
            Verdict::Skipped(format!("the guest lacks {}", needs.join(", ")))
        }
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    outcome.files = files(&artifacts);
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

/// Makes an artifact folder, without what an earlier run left there.
fn clear(artifacts: &Path) -> Result<()> {
    if artifacts.exists() {
        fs::remove_dir_all(artifacts).with_context(|| format!("cannot clear {}", artifacts.display()))?;
    }
    fs::create_dir_all(artifacts).with_context(|| format!("cannot make {}", artifacts.display()))
}

/// The files in a folder, by name.
fn files(artifacts: &Path) -> Vec<String> {
    let entries = fs::read_dir(artifacts).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// Tells the story, with a watch on its limit.
fn told_in_time(scenario: &Scenario, lab: &mut Lab) -> Result<Told> {
    let lacking = lab.unmet(scenario.needs)?;
    if !lacking.is_empty() {
        return Ok(Told::Lacking(lacking));
    }
    let limit = lab.guest.patient(scenario.limit);
    let watchdog = Watchdog::set(lab.watched(), limit);
    // A story is anybody's code: its panic is its failure, and the lab is taken down all the same.
    let told = catch_unwind(AssertUnwindSafe(|| (scenario.tell)(lab)))
        .unwrap_or_else(|panic| Err(anyhow!("the story panicked: {}", said(&*panic))));
    let told = match watchdog.called_off() {
        Some(where_it_hung) => Err(anyhow!("took longer than {limit:?}, the scenario's limit\n{where_it_hung}")),
        None => told,
    };
    told.map(|()| Told::ToTheEnd).with_context(|| format!("step \"{}\"", lab.current_step()))
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

/// What moves on the terminal while a scenario plays: its name and its step.
fn spinner(name: &str, progress: &MultiProgress) -> ProgressBar {
    let bar = progress.add(ProgressBar::new_spinner());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed:>5} {prefix}: {msg}")
            .unwrap_or(ProgressStyle::default_spinner()),
    );
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
