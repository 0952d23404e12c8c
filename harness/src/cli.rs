//! The command line of `cxl-cram-harness`.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use console::style;
use tracing_subscriber::EnvFilter;

use crate::{
    machine::config::Accel,
    provision::{Options, Progress, provision},
    scenario::{
        obstacle, report,
        runner::{self, RunOptions},
        select,
    },
};

/// Boots a guest kernel on a compressed CXL device and holds what the kernel did against snapshots.
///
/// Without a command it does `run`.
#[derive(Debug, Parser)]
#[command(name = "cxl-cram-harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    /// Show the scenarios: name and story
    List {
        /// Only scenarios whose names contain one of these
        filter: Vec<String>,
    },
}

/// Provision what is missing, boot the guest on the device and play scenarios.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run                     every scenario
  cxl-cram-harness run integrity full      scenarios by part of the name
  cxl-cram-harness run --qemu ~/qemu/build/qemu-system-x86_64

A scenario whose facts changed fails and leaves a .snap.new: `cargo insta review` shows it.")]
struct RunArgs {
    /// Only scenarios whose names contain one of these
    filter: Vec<String>,

    /// A QEMU >= 10.1 with vfio-user-pci [default: the one on PATH, else Debian's, fetched]
    #[arg(long, value_name = "PROGRAM", env = "CXL_CRAM_QEMU")]
    qemu: Option<PathBuf>,

    /// Where consoles, device logs and QEMU command lines go [default: target/cxl-cram of the workspace]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    /// Print the outcomes as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CXL_CRAM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match Cli::parse().command.unwrap_or(Command::Run(RunArgs::default())) {
        Command::Run(args) => run(&args),
        Command::List { filter } => {
            list(&filter);
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
        ExitCode::FAILURE
    })
}

/// `run`: plays the scenarios one after the other and says what came of them.
fn run(args: &RunArgs) -> Result<ExitCode> {
    let scenarios = select(&args.filter);
    if scenarios.is_empty() {
        bail!("no scenario's name contains {}; `list` shows them", args.filter.join(" or "));
    }
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    let begun = Instant::now();
    let provisioned = provision(&Options { qemu: args.qemu.clone(), ..Options::default() }, &Progress::stderr())?;
    eprintln!("Linux {} on QEMU {}, {}", provisioned.kernel.version, provisioned.qemu.version, accel());

    let mut options = RunOptions::default();
    if let Some(artifacts) = &args.artifacts {
        options.artifacts = std::path::absolute(artifacts).context("cannot name the artifact folder")?;
    }
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        let outcome = runner::play(scenario, &provisioned, &options);
        if !args.json {
            println!("{}", outcome.line());
        }
        outcomes.push(outcome);
    }
    if args.json {
        println!("{}", report::json(&outcomes)?);
    } else {
        println!("{}", report::summary(&outcomes, begun.elapsed()));
    }
    let failed = outcomes.iter().any(report::Outcome::failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `list`.
fn list(filter: &[String]) {
    for scenario in select(filter) {
        println!("{:<12} {}", style(scenario.name).bold(), scenario.story);
    }
}

/// How the guest's instructions are executed here.
fn accel() -> &'static str {
    match Accel::choose() {
        Accel::Kvm => "with KVM",
        Accel::Tcg => "with TCG (the processor offers no vmx or svm)",
    }
}
