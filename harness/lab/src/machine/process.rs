//! The QEMU process, tied to the harness's life.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::config::{Device, Drive};
use super::console;
use super::console::Watcher;
use super::terminal::{Shown, Terminal};
use crate::health::{Exit, Health};
use crate::process::interrupt;
use crate::process::script;
use crate::process::script::quote;
use crate::process::tied;

/// How much of QEMU's last standard error a report shows, in bytes.
const STDERR_TAIL: u64 = 4096;

/// The comment at the top of the script.
const REMARK: &str = "The machine, as the harness ran it. The devices must be serving: run device0.sh and so on first.";

/// An error that prevents QEMU from starting.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The program cannot be started.
    #[error("cannot start QEMU ({program:?})")]
    Start {
        /// The program.
        program: OsString,
        /// The cause.
        source: io::Error,
    },
    /// A file of the run cannot be written.
    #[error("cannot write {path}{}", remedy(source))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The remedy for a failed write, if there is one.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full { "; set TMPDIR or --artifacts to a disk with room" } else { "" }
}

/// A running QEMU. Dropping this kills it; if the harness dies, the kernel does.
#[derive(Debug)]
pub struct Process {
    handle: Arc<OwnedFd>,
    pid: u32,
    watcher: Option<JoinHandle<()>>,
    health: Health,
}

/// The files that a process writes, all in one folder.
#[derive(Clone, Debug)]
pub struct Files {
    /// The guest's console.
    pub console: PathBuf,
    /// QEMU's messages.
    pub stderr: PathBuf,
    /// A script that runs the same command line again.
    pub script: PathBuf,
}

impl Files {
    /// The files of a machine that keeps them in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            console: directory.join("console.log"),
            stderr: directory.join("qemu.log"),
            script: directory.join("qemu.sh"),
        }
    }
}

/// What QEMU needs at its start. The script that starts it again recreates or waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// The folder for QEMU's own sockets.
    pub folder: &'a Path,
    /// The devices, which must be serving.
    pub devices: &'a [Device],
    /// The drives. Writable ones were created for this machine and are empty.
    pub drives: &'a [Drive],
}

impl<'a> Needs<'a> {
    /// Only a folder for QEMU's sockets.
    pub fn folder(folder: &'a Path) -> Self {
        Self { folder, devices: &[], drives: &[] }
    }

    /// Shell commands that create a missing folder and missing drives, and wait for the devices.
    fn script(&self) -> String {
        let mut lines = format!("mkdir -p {}\n", quote(self.folder));
        for image in self.drives.iter().filter(|drive| drive.writable).map(|drive| &drive.image) {
            let folder = image.parent().unwrap_or(Path::new("/"));
            let size = fs::metadata(image).map_or(0, |image| image.len());
            let (image, folder) = (quote(image), quote(folder));
            lines.push_str(&format!("[ -e {image} ] || {{ mkdir -p {folder} && truncate -s {size} {image}; }}\n"));
        }
        for (index, device) in self.devices.iter().enumerate() {
            let waiting = format!("waiting for device {index}: device{index}.sh serves it");
            lines.push_str(&format!(
                "until [ -S {} ]; do\n    [ \"$asked\" = {index} ] || echo '{waiting}' >&2\n    asked={index}; sleep 0.1\ndone\n",
                quote(&device.socket)
            ));
        }
        lines
    }
}

impl Process {
    /// Starts QEMU with the guest's console on standard output, and attaches the terminal to it, if any.
    ///
    /// # Errors
    /// The program cannot be started, or a file cannot be written.
    pub fn start(
        mut command: Command,
        files: &Files,
        needs: Needs<'_>,
        watcher: Watcher,
        terminal: Option<&Terminal>,
        health: &Health,
    ) -> Result<Self, ProcessError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ProcessError::File { path, source }
        };
        script::write(&files.script, REMARK, &needs.script(), &command).map_err(file(&files.script))?;
        let log = File::create(&files.console).map_err(file(&files.console))?;
        let stderr = File::create(&files.stderr).map_err(file(&files.stderr))?;
        let program = command.get_program().to_owned();
        let started = |source| ProcessError::Start { program: program.clone(), source };
        let keys = terminal.map_or_else(|| Ok(Stdio::null()), Terminal::input).map_err(started)?;
        let shown = terminal.is_some();
        command.stdin(keys).stdout(Stdio::piped()).stderr(stderr);
        let mut child = tied::spawn(command, Signal::KILL).map_err(started)?;
        let number = child.id();
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                // Without a handle we could not end it later.
                let _: io::Result<()> = child.kill();
                let _: io::Result<_> = child.wait();
                return Err(started(error.into()));
            }
        };
        let handle = Arc::new(handle);
        interrupt::also_ends(&handle, Signal::KILL);
        let (health_of, stderr) = (health.clone(), files.stderr.clone());
        let read = move || watch_to_exit(child, log, &stderr, watcher, shown, &health_of);
        let watcher = match thread::Builder::new().name("console".into()).spawn(read) {
            Ok(watcher) => watcher,
            Err(error) => {
                // Nothing would read its console: it must not stay.
                let _: rustix::io::Result<()> = pidfd_send_signal(&*handle, Signal::KILL);
                return Err(started(error));
            }
        };
        Ok(Self { handle, pid: number, watcher: Some(watcher), health: health.clone() })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has exited.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&*self.handle, signal)?)
    }

    /// A pidfd, which never refers to another process.
    pub fn handle(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.handle)
    }

    /// The process ID, which another process may get once this one has exited.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the process and waits for its exit.
    pub fn kill(&mut self) -> Option<Exit> {
        // The process may have exited already.
        let _: io::Result<()> = self.signal(Signal::KILL);
        if let Some(watcher) = self.watcher.take() {
            let _: thread::Result<()> = watcher.join();
        }
        self.health.exit()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the console to its end, reaps the process and records its exit.
fn watch_to_exit(mut child: Child, log: File, stderr: &Path, watcher: Watcher, shown: bool, health: &Health) {
    if let Some(output) = child.stdout.take() {
        let mut output: Box<dyn Read> = if shown { Box::new(Shown::new(output)) } else { Box::new(output) };
        if let Err(error) = console::watch(&mut output, log, watcher, health) {
            tracing::error!("cannot log the console any longer: {error}");
        }
        // A full disk must not stop the guest: drain the rest of its console.
        let _: io::Result<u64> = io::copy(&mut output, &mut io::sink());
    }
    match child.wait() {
        Ok(status) => health.exited(Exit { status, stderr: tail(stderr) }),
        Err(error) => tracing::error!("cannot wait for QEMU: {error}"),
    }
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(STDERR_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(STDERR_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
