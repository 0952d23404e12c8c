//! `run`: plays scenarios, says what came of them, and writes reports.

use std::{num::NonZero, ops::ControlFlow, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::MultiProgress;

use super::{machine::MachineArgs, report::ReportArgs, selection::Selection};
use crate::{
    interrupt::interrupted,
    provision::{Progress, ProvisionArgs, Provisioned, provision},
    scenario::{
        Scenario, obstacle, play_all,
        report::{self, Formats, Outcome, Record},
        runner::RunOptions,
    },
};

/// Provision what is missing, boot the guest on the device and play scenarios.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run                      every scenario
  cxl-cram-harness run integrity bear       scenarios by part of the name
  cxl-cram-harness run =region --repeat 20  one of them, twenty times: does it flap?
  cxl-cram-harness run --kernel-tree ~/linux --append cxl_core.dyndbg
  cxl-cram-harness run --device-args '--codec zstd:3'
  cxl-cram-harness run --partition 1/3 --report-junit junit.xml

A scenario whose facts changed fails and leaves a .snap.new: `cargo insta review` shows it.
Exit code: 0 when nothing failed, 1 when something did, 130 after Ctrl-C.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    how: How,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    provision: ProvisionArgs,
}

impl RunArgs {
    /// Whether a program reads standard output.
    pub(super) fn for_machines(&self) -> bool {
        let Formats { json, junit, ktap, html } = self.report.formats();
        self.how.json || [json, junit, ktap, html].into_iter().flatten().any(|file| file.as_os_str() == "-")
    }
}

/// How they are played, and what is said of it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How to play")]
struct How {
    /// How many guests at once [default: as many as processors and memory allow]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,

    /// Play everything N times, and stop after the time that something failed
    #[arg(long, value_name = "N")]
    repeat: Option<NonZero<usize>>,

    /// Begin nothing more once a scenario has failed
    #[arg(long)]
    fail_fast: bool,

    /// Compare with, and make, snapshots of this kernel's release
    #[arg(long)]
    own_snapshots: bool,

    /// Where consoles, device logs and QEMU command lines go [default: target/cxl-cram of the workspace]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    /// Print the outcomes as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    let scenarios = args.selection.scenarios()?;
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}; `doctor` tells more");
    }
    let provisioned = provision(&args.provision.options(), &Progress::stderr())?;
    let about = vec![
        format!("Linux {} on QEMU {}, {}", provisioned.kernel.version, provisioned.qemu.version, args.machine.accel()),
        format!("{} processors", std::thread::available_parallelism().map_or(1, NonZero::get)),
    ];
    eprintln!("{}", about[0]);

    let mut options = RunOptions {
        overrides: args.machine.overrides(),
        jobs: args.how.jobs,
        own_snapshots: args.how.own_snapshots,
        ..RunOptions::default()
    };
    if let Some(artifacts) = &args.how.artifacts {
        options.artifacts = std::path::absolute(artifacts).context("cannot name the artifact folder")?;
    }
    let formats = args.report.formats();
    let quiet = args.for_machines();
    let say = |text: String| if quiet { eprintln!("{text}") } else { println!("{text}") };
    let begun = Instant::now();
    let outcomes = rounds(&args.how, &scenarios, &provisioned, &options, say);
    let record = Record::new(outcomes, begun.elapsed(), about);
    report::write(&record, &formats)?;
    if args.how.json {
        println!("{}", report::json(&record.scenarios)?);
    }
    say(report::summary(&record.scenarios, begun.elapsed()));
    Ok(if record.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Plays them all, as often as wished, until something fails. The outcomes are those of the last time.
fn rounds(
    how: &How,
    scenarios: &[&'static Scenario],
    provisioned: &Provisioned,
    options: &RunOptions,
    say: impl Fn(String),
) -> Vec<Outcome> {
    let progress = MultiProgress::new();
    let times = how.repeat.map_or(1, NonZero::get);
    let mut time = 1;
    loop {
        let outcomes = play_all(scenarios, provisioned, options, &progress, |outcome| {
            progress.suspend(|| say(outcome.line()));
            if how.fail_fast && outcome.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let failed = outcomes.iter().any(Outcome::failed);
        if times > 1 {
            match (failed, time == times) {
                (true, _) => eprintln!("run {time} of {times} differs"),
                (false, true) => eprintln!("{times} runs, no difference"),
                (false, false) => eprintln!("run {time} of {times}: no difference"),
            }
        }
        if failed || interrupted() || time == times {
            return outcomes;
        }
        time += 1;
    }
}
