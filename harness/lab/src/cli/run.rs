//! `run`: runs scenarios, prints their outcomes, and writes reports.

use std::{
    collections::BTreeSet,
    env,
    num::NonZero,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use console::{Term, style};
use indicatif::MultiProgress;

use super::exit::{self, Ended};
use super::machine::MachineArgs;
use super::out::outln;
use super::report::ReportArgs;
use super::selection::Selection;
use crate::lab::catalog::Catalog;
use crate::lab::scenario::Scenario;
use crate::play::artifacts;
use crate::play::last_outcomes::LastOutcomes;
use crate::play::preflight::preflight;
use crate::play::runner::RunOptions;
use crate::play::schedule::play_all;
use crate::play::snapshot::keep_insta_from_panicking;
use crate::process::interrupt::interrupted;
use crate::provision::{FetchArgs, Progress, ProvisionArgs, Provisioned, provision};
use crate::report;
use crate::report::{Formats, Outcome, Record, Verdict};
use crate::rig::obstacle;
use crate::rig::stage::Overrides;
use crate::workspace::in_workspace;

/// Provision what is missing, boot the guest on the device, and run scenarios.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run                      every scenario
  cxl-cram-harness run integrity bear       scenarios by part of their name
  cxl-cram-harness run =region --repeat 20  one scenario, twenty times, to see whether it is flaky
  cxl-cram-harness run --failed             scenarios that failed the last time
  cxl-cram-harness run --kernel-tree ~/linux --append cxl_core.dyndbg
  cxl-cram-harness run --device-args '--codec zstd:3'
  cxl-cram-harness run --partition 1/3 --report-junit junit.xml

A scenario whose facts changed fails and leaves a .snap.new; review it with `cargo insta review`.
Exit code: 0 when nothing failed, 1 when a scenario failed, 2 when the command line asks for something impossible (such as
a filter that matches nothing), 125 when this machine could not run it (provisioning failed, TMPDIR is full, the device
did not start), so that `git bisect run` skips the commit, and 130 after Ctrl-C.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    selection: Selection,

    /// Run only the scenarios that failed the last time they ran
    #[arg(long, help_heading = "Which scenarios")]
    failed: bool,

    #[command(flatten)]
    playing: PlayArgs,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    provision: ProvisionArgs,
}

impl RunArgs {
    /// Checks everything that `run` checks before it provisions.
    pub(super) fn check(&self, catalog: &Catalog) -> Result<()> {
        plan(self, catalog).map(|_| ())
    }

    /// Replaces the options for fetching and caching.
    pub(super) fn fetch(&mut self, fetch: FetchArgs) {
        self.provision = self.provision.fetched(fetch);
    }

    /// Whether a program reads standard output.
    pub(super) fn for_machines(&self) -> bool {
        let Formats { json, junit, ktap, html } = self.report.formats();
        self.playing.json || [json, junit, ktap, html].into_iter().flatten().any(|file| file.as_os_str() == "-")
    }
}

/// How to run the scenarios, and what to print.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How to run them")]
struct PlayArgs {
    /// Run up to N guests at once [default: as many as processors and memory allow]
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<NonZero<usize>>,

    /// Run everything N times, or until a round in which a scenario fails
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    repeat: Option<NonZero<usize>>,

    /// Stop starting scenarios after the first failure
    #[arg(long)]
    fail_fast: bool,

    /// Compare with snapshots of this kernel's release only, and create them
    #[arg(long)]
    own_snapshots: bool,

    /// Keep consoles, device logs and QEMU command lines here [default: target/cxl-cram of the workspace]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    /// Print the record of the run as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Parses a number of at least one.
fn at_least_one(text: &str) -> Result<NonZero<usize>, String> {
    let number: usize = text.parse().map_err(|_| "must be a number".to_owned())?;
    NonZero::new(number).ok_or_else(|| "must be at least 1".to_owned())
}

/// Keeps insta from printing differences, which every report has, from asking cargo for the workspace, and from panicking.
/// Call it before any thread starts.
pub(super) fn quieten_insta() {
    let workspace = in_workspace("");
    // SAFETY: no other thread runs yet.
    unsafe {
        keep_insta_from_panicking();
        env::set_var("INSTA_OUTPUT", "none");
        env::set_var("INSTA_WORKSPACE_ROOT", workspace);
    }
}

/// What the command line asks for, checked.
struct Plan {
    options: RunOptions,
    last: Option<LastOutcomes>,
    scenarios: Vec<&'static Scenario>,
    accel: String,
}

/// Checks everything that can be checked before anything is fetched, built or started.
fn plan(args: &RunArgs, catalog: &Catalog) -> Result<Plan> {
    let mut options = RunOptions {
        overrides: args.machine.overrides(),
        jobs: args.playing.jobs,
        own_snapshots: args.playing.own_snapshots,
        ..RunOptions::new(catalog)
    };
    if let Some(artifacts) = &args.playing.artifacts {
        options.artifacts = std::path::absolute(artifacts).context("cannot resolve the artifact folder")?;
    }
    args.report.formats().check().map_err(Ended::refused)?;
    let last = LastOutcomes::read(&options.artifacts).map_err(Ended::refused)?;
    let scenarios = chosen(args, catalog, last.as_ref(), &options.artifacts).map_err(Ended::refused)?;
    check(&scenarios, &options.overrides)?;
    let names = scenarios.iter().map(|scenario| scenario.name);
    artifacts::prepare(&options.artifacts, names).map_err(Ended::refused)?;
    let accel = args.machine.accel().map_err(Ended::CannotTest)?;
    if let Some(obstacle) = obstacle() {
        return Err(Ended::cannot_test(anyhow!("{obstacle}; run `doctor` for details")).into());
    }
    Ok(Plan { options, last, scenarios, accel })
}

/// Runs the scenarios and reports.
pub(super) fn run(args: &RunArgs, catalog: &Catalog) -> Result<ExitCode> {
    let Plan { mut options, last, scenarios, accel } = plan(args, catalog)?;
    if scenarios.is_empty() && args.failed {
        eprintln!("no scenario failed the last time");
        return Ok(ExitCode::SUCCESS);
    }
    let mut wanted = args.provision.options();
    wanted.no_corpus = !scenarios.iter().any(|scenario| scenario.machine.corpus);
    wanted.ovmf = args.machine.wants_ovmf();
    let provisioned = provision(&wanted, &Progress::stderr()).map_err(Ended::cannot_test)?;
    options.overrides.firmware = options.overrides.firmware.or_else(|| provisioned.ovmf.clone());
    let about = vec![
        format!("Linux {} on QEMU {}, {accel}", provisioned.kernel.version, provisioned.qemu.version),
        format!("{} processors", std::thread::available_parallelism().map_or(1, NonZero::get)),
    ];
    eprintln!("{}", about[0]);
    super::machine::print_remedies(&provisioned);

    let formats = args.report.formats();
    let quiet = args.for_machines();
    let print = |text: String| if quiet { eprintln!("{text}") } else { outln!("{text}") };
    let begun = Instant::now();
    let stream = if quiet { Term::stderr() } else { Term::stdout() };
    let outcomes = rounds(&args.playing, &scenarios, &provisioned, &options, |outcome| {
        // An interrupted scenario has no result to print; the summary counts it.
        if outcome.verdict != Verdict::Interrupted {
            print(outcome.line(report::width(&stream)));
        }
    });
    let record = Record::new(outcomes, begun.elapsed(), about);
    last.unwrap_or_default().update(&record.scenarios, &options.artifacts)?;
    let written = report::write(&record, &formats);
    if args.playing.json {
        outln!("{}", report::json(&record)?);
    }
    print(report::summary(&record.scenarios, begun.elapsed()));
    exit::of_record(&record, written)
}

/// The selected scenarios.
fn chosen(
    args: &RunArgs,
    catalog: &Catalog,
    last: Option<&LastOutcomes>,
    top: &Path,
) -> Result<Vec<&'static Scenario>> {
    if !args.failed {
        return args.selection.scenarios(catalog);
    }
    let last = last.with_context(|| {
        format!("--failed: no run has left its outcomes in {} yet; run without --failed first", top.display())
    })?;
    args.selection.named(catalog, &last.failed())
}

/// Checks every machine with the user's changes. Prints each warning once.
fn check(scenarios: &[&'static Scenario], overrides: &Overrides) -> Result<()> {
    let mut warnings = BTreeSet::new();
    for scenario in scenarios {
        let checked = preflight(scenario.devices, &scenario.machine, overrides);
        warnings.extend(checked.map_err(Ended::preflight).with_context(|| scenario.name)?);
    }
    for warning in warnings {
        eprintln!("{} {warning}", style("warning:").yellow().bold().for_stderr());
    }
    Ok(())
}

/// Runs all scenarios up to `--repeat` times, until one fails. Returns the outcomes of the last round.
fn rounds(
    args: &PlayArgs,
    scenarios: &[&'static Scenario],
    provisioned: &Provisioned,
    options: &RunOptions,
    print: impl Fn(&Outcome),
) -> Vec<Outcome> {
    let progress = MultiProgress::new();
    let times = args.repeat.map_or(1, NonZero::get);
    let mut time = 1;
    loop {
        let outcomes = play_all(scenarios, provisioned, options, &progress, |outcome| {
            progress.suspend(|| print(outcome));
            if args.fail_fast && outcome.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let failed = outcomes.iter().any(Outcome::failed);
        if times > 1 {
            match (failed, time == times) {
                (true, _) => eprintln!("run {time} of {times} failed"),
                (false, true) => eprintln!("{times} runs, none failed"),
                (false, false) => eprintln!("run {time} of {times} passed"),
            }
        }
        if failed || interrupted() || time == times {
            return outcomes;
        }
        time += 1;
    }
}
