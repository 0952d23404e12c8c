//! Boots the guest kernel.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;

use super::config::{ConfigError, MachineConfig};
use super::console::Watcher;
use super::hang;
use super::hang::HangProbe;
use super::process::{Files, Needs, Process, ProcessError};
use super::qmp;
use super::qmp::{Monitor, MonitorAddress, QmpError};
use super::terminal::Terminal;
use super::topology;
use super::topology::{Kernel, Sockets};
use crate::health::{Exit, Health, Trouble};
use cxl_cram_wire::protocol::Hello;

use crate::guest::channel::Channel;
use crate::guest::client::{Guest, GuestError};

/// The start of every kernel command line. An oops is a panic, and a panic ends QEMU at once. The timer check is off because a
/// guest under TCG on a busy host loses the ticks it counts, and panics. Lockups are reported only after two minutes, because
/// under TCG the guest's clock runs several times too fast if the host disturbed the TSC calibration.
///
/// `/proc/PID/mem` overrides protection on every kernel, whatever it was built with: scenarios write to memory in this way, too.
pub const APPEND: &str =
    "console=ttyS0 oops=panic panic=-1 no_timer_check watchdog_thresh=60 proc_mem.force_override=always";

/// How long QEMU may take to open its sockets.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// An error that prevents a machine from booting.
#[derive(Debug, Error)]
pub enum BootError {
    /// The machine's configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder for the sockets cannot be created.
    #[error("cannot make a temporary folder; set TMPDIR to one that can be written")]
    Directory(#[source] std::io::Error),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU does not answer on a socket.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The channel to the agent cannot be opened.
    #[error("cannot open the channel to the agent; are too many threads or files open?")]
    Channel(#[source] std::io::Error),
}

/// A kernel to boot, and how to treat it.
#[derive(Clone, Debug)]
pub struct Boot {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Kernel command line after [`APPEND`].
    pub append: String,
    /// Console lines containing one of these are not trouble in this run.
    pub expected: Vec<String>,
    /// Terminal attached to the guest console, if any.
    pub terminal: Option<Terminal>,
    /// Host port on which QEMU waits for a debugger before the guest's first instruction.
    pub debugger: Option<u16>,
    /// Factor by which limits are extended for a slow guest kernel.
    pub patience: u32,
}

/// A running machine. Dropping it kills QEMU.
pub struct Machine {
    // Dropped in this order: the guest's channel, the process, the folder of its sockets.
    guest: Guest,
    process: Process,
    sockets: Sockets,
    health: Health,
    files: Files,
    _directory: TempDir,
}

impl Machine {
    /// Starts the machine and writes its console, QEMU's messages and the command line to `artifacts`. With a debugger
    /// port, the machine is stopped and the port open when this returns.
    ///
    /// # Errors
    /// The configuration is invalid, QEMU does not start, or its sockets do not open within 30 s.
    pub fn boot(config: &MachineConfig, boot: &Boot, artifacts: &Path) -> Result<Self, BootError> {
        config.check()?;
        let directory = tempfile::Builder::new().prefix("cxl-cram-").tempdir().map_err(BootError::Directory)?;
        let sockets = Sockets::in_directory(directory.path());
        let kernel = Kernel {
            image: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            append: format!("{APPEND} {} {}", hang::APPEND, boot.append).trim_end().to_owned(),
            debugger: boot.debugger,
        };
        let mut command = (config.qemu)();
        command.args(topology::arguments(config, &sockets, Some(&kernel)));
        let health = Health::default();
        let files = Files::in_directory(artifacts);
        let watcher = Watcher::new(boot.expected.clone());
        let needs = Needs { folder: directory.path(), devices: &config.devices, drives: &config.drives };
        let process = Process::start(command, &files, needs, watcher, boot.terminal.as_ref(), &health)?;
        let port = qmp::connect(&sockets.agent, &health, LISTEN_LIMIT)?;
        if boot.debugger.is_some() {
            // The monitor answers only once the debugger port is open.
            Monitor::connect(&sockets.qmp, &health, LISTEN_LIMIT)?;
        }
        let channel = Channel::new(port, health.machine_gone()).map_err(BootError::Channel)?;
        let guest = Guest::new(channel, health.clone(), boot.patience);
        Ok(Self { guest, process, sockets, health, files, _directory: directory })
    }

    /// Waits for the agent's hello.
    ///
    /// # Errors
    /// No hello within the limit, another protocol version, a module that did not load, or the machine died.
    pub fn wait_ready(&self, limit: Duration) -> Result<(Guest, Hello), GuestError> {
        let begin = Instant::now();
        let hello = self.guest.wait_hello(limit)?;
        tracing::info!(kernel = hello.kernel, elapsed = ?begin.elapsed(), "the guest is ready");
        Ok((self.guest.clone(), hello))
    }

    /// Connects to the monitor, which accepts one connection at a time.
    ///
    /// # Errors
    /// QEMU has exited, or another connection stays open.
    pub fn monitor(&self) -> Result<Monitor, QmpError> {
        self.monitor_address().connect()
    }

    /// The monitor's address, for another thread to keep.
    pub fn monitor_address(&self) -> MonitorAddress {
        MonitorAddress::new(self.sockets.qmp.clone(), self.health.clone(), LISTEN_LIMIT)
    }

    /// The guest kernel's complaints so far.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.health.troubles()
    }

    /// The machine's health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// A probe that can diagnose a hang from another thread.
    pub fn hang_probe(&self) -> HangProbe {
        HangProbe {
            guest: self.guest.clone(),
            health: self.health.clone(),
            process: self.process.handle(),
            pid: self.process.pid(),
            monitor: self.sockets.qmp.clone(),
            console: self.files.console.clone(),
        }
    }

    /// The QEMU process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The files that the machine writes.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Powers the guest off, waits for QEMU to exit, and kills it at the limit.
    pub fn shut_down(mut self, limit: Duration) -> Option<Exit> {
        // A guest that cannot power off is killed below.
        if let Err(error) = self.guest.power_off(limit) {
            tracing::debug!("the guest did not power off: {error}");
        } else {
            self.health.wait_exit(self.guest.patient(limit));
        }
        self.process.kill()
    }

    /// Kills QEMU, like a host crash.
    pub fn kill(mut self) -> Option<Exit> {
        self.process.kill()
    }
}
