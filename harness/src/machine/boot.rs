//! The real boot.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;

use super::config::{ConfigError, MachineConfig};
use super::console::{Trouble, Watcher};
use super::hang::{self, Witness};
use super::health::{Exit, Health};
use super::process::{Files, Process, ProcessError};
use super::qmp::{self, Door, Monitor, QmpError};
use super::terminal::Terminal;
use super::topology::{self, Kernel, Sockets};
use cxl_cram_guest::protocol::Hello;

use crate::guest::channel::Channel;
use crate::guest::client::{Guest, GuestError};

/// What every kernel's command line begins with. A panic ends QEMU at once, so that nobody waits for it. The check of the
/// timer is left out: on a busy host a guest under TCG loses the ticks that it counts, and panics. A lockup is told after
/// two minutes: there, the guest's clock runs several times too fast when the host kept it from measuring the TSC.
pub const APPEND: &str = "console=ttyS0 panic=-1 no_timer_check watchdog_thresh=60";

/// How long QEMU may take to listen on its sockets.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// Why a machine did not boot.
#[derive(Debug, Error)]
pub enum BootError {
    /// The machine cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no directory for the sockets.
    #[error("make the directory for temporary files writable")]
    Directory(#[source] std::io::Error),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU does not listen.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The channel to the agent could not be set up.
    #[error("free some of this process's threads and file descriptors")]
    Channel(#[source] std::io::Error),
}

/// A kernel to boot, and what to expect of it.
#[derive(Clone, Debug)]
pub struct Boot {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Added to [`APPEND`].
    pub append: String,
    /// Parts of console lines that are no trouble in this run.
    pub expected: Vec<String>,
    /// Whom the console is shown to, and who types on it.
    pub terminal: Option<Terminal>,
    /// How many times slower the guest's kernel is than what limits are made for.
    pub patience: u32,
}

/// A running machine. It is killed when this is dropped.
pub struct Machine {
    // Dropped in this order: the guest's channel, the process, the directory of its sockets.
    guest: Guest,
    process: Process,
    sockets: Sockets,
    health: Health,
    files: Files,
    _directory: TempDir,
}

impl Machine {
    /// Starts the machine. Its console, QEMU's messages and its command line are written to `artifacts`.
    ///
    /// # Errors
    /// QEMU does not start or does not listen.
    pub fn boot(config: &MachineConfig, boot: &Boot, artifacts: &Path) -> Result<Self, BootError> {
        config.check()?;
        let directory = tempfile::Builder::new().prefix("cxl-cram-").tempdir().map_err(BootError::Directory)?;
        let sockets = Sockets::in_directory(directory.path());
        let kernel = Kernel {
            image: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            append: format!("{APPEND} {} {}", hang::APPEND, boot.append).trim_end().to_owned(),
        };
        let mut command = (config.qemu)();
        command.args(topology::arguments(config, &sockets, Some(&kernel)));
        let health = Health::default();
        let files = Files::in_directory(artifacts);
        let watcher = Watcher::new(boot.expected.clone());
        let process = Process::start(command, &files, directory.path(), watcher, boot.terminal.as_ref(), &health)?;
        let port = qmp::connect(&sockets.agent, &health, LISTEN_LIMIT)?;
        let channel = Channel::new(port, health.doomed()).map_err(BootError::Channel)?;
        let guest = Guest::new(channel, health.clone(), boot.patience);
        Ok(Self { guest, process, sockets, health, files, _directory: directory })
    }

    /// Waits until the agent has said hello.
    ///
    /// # Errors
    /// It has not within the limit, it speaks another version, a module did not load, or the machine died.
    pub fn wait_ready(&self, limit: Duration) -> Result<(Guest, Hello), GuestError> {
        let begin = Instant::now();
        let hello = self.guest.wait_hello(limit)?;
        tracing::info!(kernel = hello.kernel, elapsed = ?begin.elapsed(), "the guest is ready");
        Ok((self.guest.clone(), hello))
    }

    /// A connection to the monitor. There can be one at a time.
    ///
    /// # Errors
    /// QEMU has ended, or another connection is open.
    pub fn monitor(&self) -> Result<Monitor, QmpError> {
        self.monitor_door().open()
    }

    /// The way to the monitor, to be kept by another thread.
    pub fn monitor_door(&self) -> Door {
        Door::new(self.sockets.qmp.clone(), self.health.clone(), LISTEN_LIMIT)
    }

    /// What the guest kernel complained of so far.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.health.troubles()
    }

    /// What is known of the machine's life.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// One who can say where the machine hangs, whatever its owner does meanwhile.
    pub fn witness(&self) -> Witness {
        Witness {
            guest: self.guest.clone(),
            health: self.health.clone(),
            process: self.process.handle(),
            pid: self.process.pid(),
            monitor: self.sockets.qmp.clone(),
            console: self.files.console.clone(),
        }
    }

    /// QEMU's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The files the machine writes.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Asks the guest to switch itself off, waits for QEMU's end, and kills it at the limit.
    pub fn shut_down(mut self, limit: Duration) -> Option<Exit> {
        // A guest that cannot do it any more is killed below.
        if let Err(error) = self.guest.power_off(limit) {
            tracing::debug!("the guest did not switch itself off: {error}");
        } else {
            self.health.wait_exit(limit);
        }
        self.process.kill()
    }

    /// Kills QEMU, as a crash of the host would.
    pub fn kill(mut self) -> Option<Exit> {
        self.process.kill()
    }
}
