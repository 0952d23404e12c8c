//! The command line of `cxl-cram-harness`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use console::style;
use cxl_cram_device::size::{format_bytes, parse_bytes};
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use crate::{
    guest::initramfs::Initramfs,
    interrupt,
    machine::{config::Accel, learn},
    provision::{Cache, Options, Progress, provision},
    scenario::{obstacle, play_all, report, runner::RunOptions, select},
};

/// How long the firmware of a QEMU of the user's own may take.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(60);

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
    Acpi(AcpiArgs),
    /// Remove everything that was fetched and built
    Clean {
        /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
        #[arg(long, value_name = "FOLDER")]
        cache_dir: Option<PathBuf>,
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

    #[command(flatten)]
    provision: ProvisionArgs,

    /// Where consoles, device logs and QEMU command lines go [default: target/cxl-cram of the workspace]
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    /// Print the outcomes as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Make the ACPI override for a QEMU of your own.
///
/// Starts your command line without a guest, asks it where the firmware put the device's BAR2, and writes an early
/// cpio that declares a CXL window there. Put it before your initramfs: cat OUT initramfs > initrd.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example, with the device already served on /tmp/cram.sock:
  cxl-cram-harness acpi --output acpi.cpio -- qemu-system-x86_64 -M q35,cxl=on,memory-backend=mem ...")]
struct AcpiArgs {
    /// Where to write the early cpio
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The device's capacity [default: half of BAR2, right for a capacity that is a power of two]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    capacity: Option<u64>,

    /// The QEMU command line whose machine it is for
    #[arg(last = true, required = true)]
    qemu: Vec<OsString>,
}

/// What is brought along instead of being fetched or built.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
struct ProvisionArgs {
    /// A QEMU >= 10.1 with vfio-user-pci [default: the one on PATH, else Debian's, fetched]
    #[arg(long, value_name = "PROGRAM", env = "CXL_CRAM_QEMU")]
    qemu: Option<PathBuf>,

    /// A kernel source tree: configured and built in a folder of its own, the tree itself is left alone
    #[arg(long, value_name = "FOLDER", conflicts_with = "kernel")]
    kernel_tree: Option<PathBuf>,

    /// A kernel that is built: a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// A module of that kernel, in load order (cxl_acpi.ko); may be given more than once
    #[arg(long, value_name = "FILE", requires = "kernel")]
    module: Vec<PathBuf>,

    /// A folder with usr/bin/cxl and its libraries, instead of Debian's packages
    #[arg(long, value_name = "FOLDER")]
    guest_tools: Option<PathBuf>,

    /// A file of real data to fill guest memory with
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Use what is in the cache, never the network
    #[arg(long)]
    offline: bool,
}

impl ProvisionArgs {
    fn options(&self) -> Options {
        let own = self.clone();
        Options {
            qemu: own.qemu,
            kernel_tree: own.kernel_tree,
            kernel: own.kernel,
            kernel_modules: own.module,
            guest_tools: own.guest_tools,
            corpus: own.corpus,
            cache_dir: own.cache_dir,
            offline: own.offline,
        }
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CXL_CRAM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let command = Cli::parse().command;
    if let Err(error) = interrupt::install() {
        tracing::warn!("Ctrl-C will end this at once: {error}");
    }
    let outcome = match command.unwrap_or(Command::Run(RunArgs::default())) {
        Command::Run(args) => run(&args),
        Command::List { filter } => {
            list(&filter);
            Ok(ExitCode::SUCCESS)
        }
        Command::Acpi(args) => acpi(&args),
        Command::Clean { cache_dir } => clean(cache_dir.as_deref()),
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
        ExitCode::FAILURE
    });
    if interrupt::interrupted() { ExitCode::from(interrupt::EXIT_CODE) } else { code }
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
    let provisioned = provision(&args.provision.options(), &Progress::stderr())?;
    eprintln!("Linux {} on QEMU {}, {}", provisioned.kernel.version, provisioned.qemu.version, accel());

    let mut options = RunOptions::default();
    if let Some(artifacts) = &args.artifacts {
        options.artifacts = std::path::absolute(artifacts).context("cannot name the artifact folder")?;
    }
    let progress = MultiProgress::new();
    let outcomes = play_all(&scenarios, &provisioned, &options, &progress, |outcome| {
        if !args.json {
            progress.suspend(|| println!("{}", outcome.line()));
        }
    });
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

/// `acpi`.
fn acpi(args: &AcpiArgs) -> Result<ExitCode> {
    let directory = tempfile::tempdir().context("cannot make a temporary folder")?;
    let [program, arguments @ ..] = args.qemu.as_slice() else { bail!("give the QEMU command line after --") };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let learnt = learn::learn_own(command, directory.path(), directory.path(), FIRMWARE_LIMIT)?;
    let initramfs = Initramfs { tables: vec![learnt.own_override(args.capacity)?], ..Initramfs::default() };
    std::fs::write(&args.output, initramfs.early_archive()?)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    for bar in &learnt.bars {
        let capacity = args.capacity.unwrap_or(bar.size / 2);
        println!("CXL window of {} at {:#x}, over BAR2", format_bytes(capacity), bar.address);
    }
    Ok(ExitCode::SUCCESS)
}

/// `clean`.
fn clean(cache_dir: Option<&Path>) -> Result<ExitCode> {
    let cache = Cache::open(cache_dir)?;
    for entry in cache.clean()? {
        println!("removed {}", entry.path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// How the guest's instructions are executed here.
fn accel() -> &'static str {
    match Accel::choose() {
        Accel::Kvm => "with KVM",
        Accel::Tcg => "with TCG (the processor offers no vmx or svm)",
    }
}
