//! `boot`: the guest and its device in the user's hands: a shell, or one command.

mod keyboard;
mod shell;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use console::style;
use cxl_cram_guest::protocol::{Exit, Program, Stream};

use super::machine::MachineArgs;
use crate::{
    guest::{
        client::{Guest, GuestError},
        program::Next,
    },
    machine::{
        launch::{Launched, launch},
        terminal::Terminal,
    },
    provision::{Progress, ProvisionArgs, provision},
    scenario::{CATALOG, Device, DeviceShape, MachineShape, Stage, Watchdog, obstacle},
};

/// What `git bisect run` takes for "this one cannot be tested".
const CANNOT_TELL: u8 = 125;
/// What timeout(1) ends with.
const LATE: u8 = 124;
/// What shells add to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;
/// How long the guest may take to switch itself off.
const OFF_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks while nothing happens.
const LONG: Duration = Duration::from_secs(3600);

/// Boot the guest with the device attached and give a shell on its console, or run one command in it.
///
/// The shell's end (exit, Ctrl-D) switches the guest off; Ctrl-A x ends it at once; everything else that is typed,
/// Ctrl-C too, goes to the guest. With -c or --script there is no console: the output is the command's.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness boot                                   a shell; cxl, daxctl and busybox are there
  cxl-cram-harness boot --capacity 1G --physical 256M --codec zstd:3
  cxl-cram-harness boot --shape watermark                 the device and machine of that scenario
  cxl-cram-harness boot -c 'cxl list -M'
  cxl-cram-harness boot --overlay tests/ -c /opt/test     FOLDER/opt/test is in the guest
  git bisect run cxl-cram-harness boot --kernel-tree . --script reproduce.sh

Exit code: the command's (or the shell's), 128 and more for a signal, 124 at --limit, 1 when the guest died, and 125 when
it cannot be tested: there is no kernel or no device. That is what `git bisect run` wants.")]
pub(super) struct BootArgs {
    /// Run this shell line and end with its exit code
    #[arg(short = 'c', long, value_name = "LINE", conflicts_with = "script")]
    command: Option<String>,

    /// Run this file with the guest's shell and end with its exit code
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// End the command after this many seconds, and say where the guest hangs [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,

    /// The devices and the machine of this scenario
    #[arg(long, value_name = "SCENARIO")]
    shape: Option<String>,

    /// HDM promised: a multiple of 256 MiB [default: 512M]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<String>,

    /// Media that exists [default: 256M]
    #[arg(long, value_name = "SIZE")]
    physical: Option<String>,

    /// lz4, zstd, zstd:LEVEL, adaptive or adaptive:LEVEL [default: lz4]
    #[arg(long, value_name = "CODEC")]
    codec: Option<String>,

    /// Add the files of this folder to the guest's root: FOLDER/opt/test is /opt/test there; may be given more than once
    #[arg(long, value_name = "FOLDER")]
    overlay: Vec<PathBuf>,

    /// Keep console, device log and QEMU command line in this folder
    #[arg(long, value_name = "FOLDER")]
    artifacts: Option<PathBuf>,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    provision: ProvisionArgs,
}

/// Does it. What keeps the guest from coming up says nothing about the kernel under test: it has an exit code of its own.
pub(super) fn boot(args: &BootArgs) -> Result<ExitCode> {
    let interactive = args.command.is_none() && args.script.is_none();
    match args.line().and_then(|line| Ok((line, prepared(args)?))) {
        Ok((line, (stage, _folder))) => play(args, stage, line.as_deref()),
        Err(error) if !interactive => {
            eprintln!("{} {error:#}", style("cannot test:").red().bold().for_stderr());
            Ok(ExitCode::from(CANNOT_TELL))
        }
        Err(error) => Err(error),
    }
}

impl BootArgs {
    /// The shell's lines to run instead of a shell for people.
    fn line(&self) -> Result<Option<String>> {
        match &self.script {
            Some(script) => {
                let text = std::fs::read_to_string(script);
                text.map(Some).with_context(|| format!("cannot read {}", script.display()))
            }
            None => Ok(self.command.clone()),
        }
    }

    /// The devices and the machine, as the flags have them. The words live as long as the program.
    fn shapes(&self) -> Result<(Vec<DeviceShape>, MachineShape)> {
        let (mut devices, machine) = match &self.shape {
            None => (vec![DeviceShape::USUAL], MachineShape::USUAL),
            Some(name) => {
                let scenario = CATALOG.iter().find(|scenario| scenario.name == name);
                let scenario = scenario.with_context(|| format!("no scenario is named {name}; `list` shows them"))?;
                (scenario.devices.to_vec(), scenario.machine)
            }
        };
        let word = |given: &Option<String>, usual: &'static str| -> &'static str {
            given.as_ref().map_or(usual, |given| given.clone().leak())
        };
        for device in &mut devices {
            device.capacity = word(&self.capacity, device.capacity);
            device.physical = word(&self.physical, device.physical);
            device.codec = word(&self.codec, device.codec);
        }
        Ok((devices, machine))
    }
}

/// Everything but the guest. The folder, if it is a temporary one, goes with what is returned.
fn prepared(args: &BootArgs) -> Result<(Stage, Option<tempfile::TempDir>)> {
    let (devices, mut machine) = args.shapes()?;
    // The shell would not survive it.
    machine.restarts = false;
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}; `doctor` tells more");
    }
    let provisioned = provision(&args.provision.options(), &Progress::stderr())?;
    eprintln!("Linux {} on QEMU {}, {}", provisioned.kernel.version, provisioned.qemu.version, args.machine.accel());
    let temporary = match args.artifacts {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("cxl-cram-").tempdir().context("cannot make a temporary folder")?),
    };
    let artifacts = match (&args.artifacts, &temporary) {
        (Some(folder), _) => std::path::absolute(folder).context("cannot name the artifact folder")?,
        (None, temporary) => temporary.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default(),
    };
    std::fs::create_dir_all(&artifacts).with_context(|| format!("cannot make {}", artifacts.display()))?;
    let mut stage = Stage::set(&devices, &machine, &args.machine.overrides(), &provisioned, &artifacts)?;
    stage.launch.initramfs.tools.extend_from_slice(&args.overlay);
    Ok((stage, temporary))
}

/// Boots and gives the guest away, or runs the command.
fn play(args: &BootArgs, mut stage: Stage, line: Option<&str>) -> Result<ExitCode> {
    for device in &stage.devices {
        eprintln!("device control socket (QMP): {}", device.control().display());
    }
    let mut typed = None;
    if line.is_none() {
        let (terminal, keys) = Terminal::new().context("cannot make a pipe for the console")?;
        stage.launch.terminal = Some(terminal);
        typed = Some(keys);
    }
    let launched = launch(&stage.machine, &stage.launch)?;
    let code = match (line, typed) {
        (Some(line), _) => command(args, &launched, line),
        (None, Some(keys)) => shell::shell(&launched, keys),
        (None, None) => Err(anyhow!("there is no console")),
    };
    let warnings = launched.machine.troubles();
    launched.machine.shut_down(OFF_LIMIT);
    for trouble in warnings {
        eprintln!("{} {}", style("the guest kernel said:").yellow().bold().for_stderr(), trouble.line);
    }
    stage.devices.iter_mut().try_for_each(Device::stop)?;
    code
}

/// Runs a shell line, its output as it comes.
fn command(args: &BootArgs, launched: &Launched, line: &str) -> Result<ExitCode> {
    let watched = std::sync::Arc::new(std::sync::Mutex::new(launched.machine.witness()));
    let watchdog = args.limit.map(|seconds| Watchdog::set(watched, Duration::from_secs(seconds)));
    let ended = run(&launched.guest, line);
    if let Some(where_it_hung) = watchdog.and_then(Watchdog::called_off) {
        eprintln!("took longer than {} s\n{where_it_hung}", args.limit.unwrap_or_default());
        return Ok(ExitCode::from(LATE));
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
            // Nobody may be reading any more; the command runs on, for its exit code.
            Ok(Next::Line(Stream::Stdout, line)) => _ = writeln!(out, "{line}"),
            Ok(Next::Line(Stream::Stderr, line)) => _ = writeln!(err, "{line}"),
            Ok(Next::Exited(exit)) => return Ok(exit),
            Err(GuestError::TimedOut { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// As a shell has it.
fn exit_code(exit: Exit) -> ExitCode {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => SIGNALLED + signal,
    };
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
