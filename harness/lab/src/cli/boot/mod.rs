//! `boot`: boots the guest with its device, and gives the user a shell or runs one command.

mod debugger;
mod keyboard;
mod shell;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use console::style;
use cxl_cram_device::store::Codec;
use cxl_cram_kit::size::parse_bytes;
use cxl_cram_wire::protocol::{Exit, Program, Stream};

use super::exit::{Ended, LATE};
use super::machine::MachineArgs;
use crate::guest::client::{ENDLESS, Guest, GuestError};
use crate::guest::program::Next;
use crate::lab::catalog::Catalog;
use crate::machine::decoders::Decoders;
use crate::machine::launch::{LaunchError, Launched, start};
use crate::machine::terminal::Terminal;
use crate::play::artifacts;
use crate::play::preflight::preflight;
use crate::process::interrupt::interrupted;
use crate::provision::{Progress, ProvisionArgs, provision};
use crate::rig::device::Device;
use crate::rig::obstacle;
use crate::rig::shape::{DeviceShape, MachineShape};
use crate::rig::stage::{Stage, ended, host_at_fault};
use crate::rig::watchdog::Watchdog;

/// Keeps the kernel's ordinary messages off the user's console; warnings and worse still appear.
const QUIET: &str = "loglevel=5";
/// Added to a signal's number to form an exit code, as shells do.
const SIGNALLED: i32 = 128;
/// Time limit for the guest to power off.
const OFF_LIMIT: Duration = Duration::from_secs(20);
/// Wake-up interval while nothing happens.
const LONG: Duration = Duration::from_secs(3600);

/// Boot the guest with the device attached, and open a shell on its console or run one command.
///
/// Leaving the shell (exit, Ctrl-D) powers the guest off; Ctrl-A x ends it at once. All other keys, including Ctrl-C, go to
/// the guest. With -c or --script there is no console: the output is the command's.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness boot                            a shell with cxl, daxctl and busybox
  cxl-cram-harness boot --capacity 1G --physical 256M --codec zstd:3
  cxl-cram-harness boot --shape watermark          the device and machine of that scenario
  cxl-cram-harness boot -c 'cxl list -M'
  cxl-cram-harness boot --decoders committed       as a BIOS leaves CXL memory: region0 is there
  cxl-cram-harness boot --overlay tests/ -c /opt/test
  cxl-cram-harness boot --gdb                      wait for gdb, and print the line that starts it
  git bisect run cxl-cram-harness boot --kernel-tree . --script reproduce.sh

Exit code: the command's (or the shell's), 128 plus the number of a signal, 124 at --limit, 1 when the guest died, 2 when
the command line asks for something impossible, 125 when this machine could not test it (no kernel, no device, TMPDIR is
full, an overlay is missing, the capacity does not fit), so that `git bisect run` skips the commit, and 130 after Ctrl-C.")]
pub(super) struct BootArgs {
    /// Run this shell line and exit with its exit code
    #[arg(short = 'c', long, value_name = "LINE", conflicts_with = "script")]
    command: Option<String>,

    /// Run this file with the guest's shell and exit with its exit code
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// End the boot, and then the command, after this many seconds each, and show where the guest hangs
    /// [default: 60 for the boot, none for the command]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Wait for a debugger on this port of localhost before the guest's first instruction; turns off address randomization
    /// and time limits [default port: 1234]
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "1234", conflicts_with = "limit")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    gdb: Option<u16>,

    /// Use the devices and the machine of this scenario
    #[arg(long, value_name = "SCENARIO")]
    shape: Option<String>,

    /// HDM capacity the device offers: a multiple of 256 MiB [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    capacity: Option<u64>,

    /// Physical media behind it [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    physical: Option<u64>,

    /// Compress with lz4, zstd, zstd:LEVEL, adaptive or adaptive:LEVEL [default: lz4]
    #[arg(long, value_name = "CODEC")]
    codec: Option<Codec>,

    /// How Linux finds the HDM decoders [default: open]
    #[arg(long, value_enum, value_name = "STATE")]
    decoders: Option<Decoders>,

    /// Add this folder's files to the guest's root: FOLDER/opt/test becomes /opt/test; may be given more than once
    #[arg(long, value_name = "FOLDER")]
    overlay: Vec<PathBuf>,

    /// Keep console, device log and QEMU command line in this folder: new, empty, or from an earlier run
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    /// Show all kernel messages during the boot
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    provision: ProvisionArgs,
}

/// Boots a guest, and opens a shell or runs the command.
pub(super) fn boot(args: &BootArgs, catalog: &Catalog) -> Result<ExitCode> {
    let (devices, mut machine) = args.shapes(catalog).map_err(Ended::refused)?;
    // The shell would not survive a restart.
    machine.restarts = false;
    let warnings = preflight(&devices, &machine, &args.machine.overrides()).map_err(Ended::preflight)?;
    for warning in warnings {
        eprintln!("{} {warning}", style("warning:").yellow().bold().for_stderr());
    }
    if let Some(folder) = &args.artifacts {
        artifacts::claim(folder).map_err(Ended::refused)?;
    }
    if let Some(port) = args.gdb {
        debugger::check(port).map_err(Ended::CannotTest)?;
    }
    let line = args.line().map_err(Ended::CannotTest)?;
    let prepared = prepared(args, &devices, &machine).map_err(Ended::CannotTest)?;
    start_guest(args, prepared, line.as_deref())
}

impl BootArgs {
    /// The shell lines to run instead of an interactive shell.
    fn line(&self) -> Result<Option<String>> {
        match &self.script {
            Some(script) => {
                let text = std::fs::read_to_string(script);
                text.map(Some).with_context(|| format!("cannot read {}", script.display()))
            }
            None => Ok(self.command.clone()),
        }
    }

    /// The devices and the machine that the flags describe.
    fn shapes(&self, catalog: &Catalog) -> Result<(Vec<DeviceShape>, MachineShape)> {
        let (mut devices, machine) = match &self.shape {
            None => (vec![DeviceShape::USUAL], MachineShape::USUAL),
            Some(name) => {
                let scenario =
                    catalog.find(name).with_context(|| format!("no scenario is named {name}; `list` shows them"))?;
                (scenario.devices.to_vec(), scenario.machine)
            }
        };
        for device in &mut devices {
            device.capacity = self.capacity.unwrap_or(device.capacity);
            device.physical = self.physical.unwrap_or(device.physical);
            device.codec = self.codec.unwrap_or(device.codec);
        }
        Ok((devices, machine))
    }
}

/// Everything but the guest.
struct Prepared {
    stage: Stage,
    /// The kernel for a debugger, if known.
    vmlinux: Option<PathBuf>,
    /// The folder for artifacts that are not kept. Removed last.
    _folder: Option<tempfile::TempDir>,
}

fn prepared(args: &BootArgs, devices: &[DeviceShape], machine: &MachineShape) -> Result<Prepared> {
    for overlay in &args.overlay {
        let there = overlay.metadata().with_context(|| format!("cannot read --overlay {}", overlay.display()))?;
        ensure!(there.is_dir(), "--overlay {} is not a folder", overlay.display());
    }
    let accel = args.machine.accel()?;
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}; run `doctor` for details");
    }
    let mut wanted = args.provision.options();
    wanted.no_corpus = !machine.corpus;
    wanted.ovmf = args.machine.wants_ovmf();
    let provisioned = provision(&wanted, &Progress::stderr())?;
    let mut overrides = args.machine.overrides();
    overrides.firmware = overrides.firmware.or_else(|| provisioned.ovmf.clone());
    eprintln!("Linux {} on QEMU {}, {}", provisioned.kernel.version, provisioned.qemu.version, accel);
    super::machine::print_remedies(&provisioned);
    let temporary = match args.artifacts {
        Some(_) => None,
        None => {
            let folder = tempfile::Builder::new().prefix("cxl-cram-").tempdir();
            Some(folder.context("cannot create a temporary folder; set TMPDIR to a writable folder")?)
        }
    };
    let artifacts = match (&args.artifacts, &temporary) {
        (Some(folder), _) => std::path::absolute(folder).context("cannot resolve the artifact folder")?,
        (None, temporary) => temporary.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default(),
    };
    let decoders = args.decoders.unwrap_or(machine.decoders);
    let machine = MachineShape { selftests: true, decoders, ..*machine };
    let mut stage = Stage::set(devices, &machine, &overrides, &provisioned, &artifacts)?;
    stage.launch.initramfs.tools.extend_from_slice(&args.overlay);
    if args.gdb.is_some() {
        stage.launch.debugger = args.gdb;
        stage.launch.append = format!("{} {}", debugger::APPEND, stage.launch.append).trim_end().to_owned();
        stage.launch.patience = ENDLESS;
    }
    Ok(Prepared { stage, vmlinux: provisioned.kernel.vmlinux, _folder: temporary })
}

/// Boots, and opens a shell or runs the command.
fn start_guest(args: &BootArgs, prepared: Prepared, line: Option<&str>) -> Result<ExitCode> {
    let Prepared { mut stage, vmlinux, _folder } = prepared;
    let mut typed = None;
    if line.is_none() {
        let (terminal, keys) = Terminal::new().context("cannot create a pipe for the console")?;
        stage.launch.terminal = Some(terminal);
        typed = Some(keys);
        if !args.verbose {
            // The user's --append comes last, so it wins.
            stage.launch.append = format!("{QUIET} {}", stage.launch.append).trim_end().to_owned();
            eprintln!("booting; --verbose shows the kernel's messages");
        }
    }
    let limit = args.limit.map(Duration::from_secs);
    if let Some(limit) = limit {
        // The launch multiplies its limit for slow kernels; the user's limit must hold as given.
        stage.launch.ready_limit = stage.launch.ready_limit.min(limit / stage.launch.patience.max(1));
    }
    let launched = start(&stage.machine, &stage.launch).and_then(|started| {
        if let Some(port) = args.gdb {
            eprintln!("{}", debugger::invitation(port, vmlinux.as_deref()));
        }
        started.wait()
    });
    let launched = match launched {
        Err(LaunchError::Guest(error @ GuestError::TimedOut { .. })) if limit.is_some() => {
            eprintln!("{error}");
            return Ok(LATE.into());
        }
        Err(error) => return Err(boot_failure(error.into(), &mut stage.devices)),
        Ok(launched) => launched,
    };
    let code = match (line, typed) {
        (Some(line), _) => command(args, &launched, line),
        (None, Some(keys)) => shell::shell(&launched, &stage.devices, keys),
        (None, None) => Err(anyhow!("there is no console")),
    };
    let code = code.map_err(|error| ended(&mut stage.devices).map_or(error, |ended| anyhow!(ended)));
    let warnings = launched.machine.troubles();
    launched.machine.shut_down(OFF_LIMIT);
    for trouble in warnings.iter().filter(|_| !interrupted()) {
        eprintln!("{} {}", style("guest kernel:").yellow().bold().for_stderr(), trouble.line);
    }
    let code = code?;
    stage.devices.iter_mut().try_for_each(Device::stop)?;
    Ok(code)
}

/// Classifies a failed boot. Only a kernel that does not come up is a bad kernel; any other fault leaves it untested.
fn boot_failure(error: anyhow::Error, devices: &mut [Device]) -> anyhow::Error {
    match ended(devices) {
        Some(ended) => Ended::CannotTest(anyhow!(ended)).into(),
        None if host_at_fault(&error) => Ended::CannotTest(error).into(),
        None => error,
    }
}

/// Runs a shell line and passes on its output as it arrives.
fn command(args: &BootArgs, launched: &Launched, line: &str) -> Result<ExitCode> {
    let watched = std::sync::Arc::new(std::sync::Mutex::new(launched.machine.hang_probe()));
    let watchdog = args.limit.map(|seconds| Watchdog::set(watched, Duration::from_secs(seconds))).transpose()?;
    let ended = run(&launched.guest, line);
    if let Some(where_it_hung) = watchdog.and_then(Watchdog::called_off) {
        eprintln!("took longer than {} s\n{where_it_hung}", args.limit.unwrap_or_default());
        return Ok(LATE.into());
    }
    Ok(exit_code(ended?))
}

fn run(guest: &Guest, line: &str) -> Result<Exit, GuestError> {
    const SCRIPT: &str = "/tmp/boot.sh";
    guest.write_file(SCRIPT, line.as_bytes().to_vec())?;
    let program = Program { cwd: Some("/root".into()), ..Program::new(["sh", SCRIPT]) };
    let mut program = guest.spawn(program)?;
    program.close_stdin()?;
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    loop {
        match program.next(LONG) {
            // If the reader is gone, the command still runs to the end, for its exit code.
            Ok(Next::Line(Stream::Stdout, line)) => _ = writeln!(out, "{line}"),
            Ok(Next::Line(Stream::Stderr, line)) => _ = writeln!(err, "{line}"),
            Ok(Next::Exited(exit)) => return Ok(exit),
            Err(GuestError::TimedOut { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The exit code that a shell would report.
fn exit_code(exit: Exit) -> ExitCode {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => SIGNALLED + signal,
    };
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
