//! The QEMU process, tied to the harness's life.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded, unbounded};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::console::{self, Watcher};
use super::health::{Exit, Health};
use super::terminal::{Shown, Terminal};
use crate::interrupt;

/// The end of QEMU's standard error that a report has, in bytes.
const STDERR_TAIL: u64 = 4096;

/// Why QEMU did not start.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("give a QEMU that starts: {program:?} does not")]
    Start {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// A file of the run could not be written.
    #[error("make {path} writable")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running QEMU. It is killed when this is dropped, and by the kernel when the harness dies.
#[derive(Debug)]
pub struct Process {
    handle: Arc<OwnedFd>,
    pid: u32,
    watcher: Option<JoinHandle<()>>,
    health: Health,
}

/// The files a process writes, all in one directory.
#[derive(Clone, Debug)]
pub struct Files {
    /// What the guest said.
    pub console: PathBuf,
    /// What QEMU said.
    pub stderr: PathBuf,
    /// The command line, as a script that runs it again.
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

impl Process {
    /// Starts QEMU, whose console is its standard output. With a terminal people see it and type on it.
    ///
    /// # Errors
    /// The program cannot be started, or a file cannot be written.
    pub fn start(
        mut command: Command,
        files: &Files,
        sockets: &Path,
        watcher: Watcher,
        terminal: Option<&Terminal>,
        health: &Health,
    ) -> Result<Self, ProcessError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ProcessError::File { path, source }
        };
        write_script(&command, &files.script, sockets).map_err(file(&files.script))?;
        let log = File::create(&files.console).map_err(file(&files.console))?;
        let stderr = File::create(&files.stderr).map_err(file(&files.stderr))?;
        let program = command.get_program().to_owned();
        let started = |source| ProcessError::Start { program: program.clone(), source };
        let keys = terminal.map_or_else(|| Ok(Stdio::null()), Terminal::input).map_err(started)?;
        let shown = terminal.is_some();
        command.stdin(keys).stdout(Stdio::piped()).stderr(stderr);
        let mut child = spawn_tied(command).map_err(started)?;
        let number = child.id();
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                // Without a handle it could not be watched: it must not stay.
                let _: io::Result<()> = child.kill();
                let _: io::Result<_> = child.wait();
                return Err(started(error.into()));
            }
        };
        let handle = Arc::new(handle);
        interrupt::also_ends(&handle, Signal::KILL);
        let (health_of, stderr) = (health.clone(), files.stderr.clone());
        let watcher = thread::spawn(move || see_out(child, log, &stderr, watcher, shown, &health_of));
        Ok(Self { handle, pid: number, watcher: Some(watcher), health: health.clone() })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&*self.handle, signal)?)
    }

    /// A handle (pidfd) by which others can signal it, whatever becomes of its number.
    pub fn handle(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.handle)
    }

    /// Its number, which may be another's once it has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> Option<Exit> {
        // A process that has ended cannot be signalled; that is as well.
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

/// Reads the console to its end, reaps the process and tells how it ended.
fn see_out(mut child: Child, log: File, stderr: &Path, watcher: Watcher, shown: bool, health: &Health) {
    if let Some(output) = child.stdout.take() {
        let mut output: Box<dyn Read> = if shown { Box::new(Shown::new(output)) } else { Box::new(output) };
        if let Err(error) = console::watch(&mut output, log, watcher, health) {
            tracing::error!("the console is no longer written: {error}");
        }
        // A log that cannot be written must not stop the guest: what is left is read and dropped.
        let _: io::Result<u64> = io::copy(&mut output, &mut io::sink());
    }
    match child.wait() {
        Ok(status) => health.exited(Exit { status, stderr: tail(stderr) }),
        Err(error) => tracing::error!("QEMU could not be waited for: {error}"),
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

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a process that the kernel kills when the harness dies. The kernel ties it to the *thread* that started it,
/// so a thread that lives as long as the harness starts them all.
fn spawn_tied(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = unbounded::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody may wait any more; the child then dies with its handle's owner.
                let _: Result<(), _> = reply.send(command.spawn());
            }
        });
        orders
    });
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The harness may have died before the signal was set.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
    let (reply, answer) = bounded(1);
    let lost = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send((command, reply)).map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    answer.recv().map_err(lost)?
}

/// Writes the command line as a script that runs it again.
fn write_script(command: &Command, path: &Path, sockets: &Path) -> io::Result<()> {
    let mut script = String::from("#!/bin/sh\n# The machine, as the harness ran it. The devices must be serving.\n");
    script.push_str(&format!("mkdir -p {}\n", quote(sockets.as_os_str())));
    script.push_str("exec env");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.push_str(&format!(" {}={}", name.to_string_lossy(), quote(value))),
            None => script.push_str(&format!(" -u {}", name.to_string_lossy())),
        }
    }
    script.push_str(&format!(" {}", quote(command.get_program())));
    for argument in command.get_args() {
        let option = argument.as_encoded_bytes().starts_with(b"-");
        script.push_str(if option { " \\\n    " } else { " " });
        script.push_str(&quote(argument));
    }
    script.push('\n');
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?.write_all(script.as_bytes())
}

/// A word as the shell reads it back.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
