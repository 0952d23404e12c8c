//! A client of QEMU's monitor (QMP).

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use qapi::{Command, ExecuteError, Qmp, Stream, qmp};
use thiserror::Error;

use crate::health::{Health, Report};

/// How often to retry connecting while QEMU has not created the socket.
const POLL: Duration = Duration::from_millis(2);
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// A monitor error.
#[derive(Debug, Error)]
pub enum QmpError {
    /// QEMU does not listen on the socket.
    #[error("{} its socket {socket}\n{report}", if report.exit.is_some() { "QEMU exited before opening" } else { "QEMU does not answer on" })]
    Connect {
        /// The socket.
        socket: String,
        /// The machine's state.
        report: Box<Report>,
    },
    /// The connection broke or timed out.
    #[error("QEMU's monitor does not answer: {error}\n{report}")]
    Broken {
        /// The cause. Part of the message, because it must come before the report.
        error: io::Error,
        /// The machine's state.
        report: Box<Report>,
    },
    /// QEMU refused a command.
    #[error("QEMU refuses {command}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's reason.
        source: qapi::Error,
    },
}

/// The address of a machine's monitor, for a thread that cannot borrow the machine.
#[derive(Clone)]
pub struct MonitorAddress {
    socket: PathBuf,
    health: Health,
    limit: Duration,
}

impl MonitorAddress {
    /// The monitor on this socket. `limit` bounds each connection attempt.
    pub(super) fn new(socket: PathBuf, health: Health, limit: Duration) -> Self {
        Self { socket, health, limit }
    }

    /// Connects to the monitor, which accepts one connection at a time.
    ///
    /// # Errors
    /// QEMU has exited, or another connection stays open.
    pub fn connect(&self) -> Result<Monitor, QmpError> {
        Monitor::connect(&self.socket, &self.health, self.limit)
    }
}

/// A connection to the monitor, after negotiation.
pub struct Monitor {
    qmp: Qmp<Stream<BufReader<UnixStream>, UnixStream>>,
    health: Health,
}

impl Monitor {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// QEMU does not listen within the limit, exits, or does not speak QMP.
    pub fn connect(socket: &Path, health: &Health, limit: Duration) -> Result<Self, QmpError> {
        let stream = connect(socket, health, limit)?;
        let broken = |error| QmpError::Broken { error, report: Box::new(health.post_mortem()) };
        stream.set_read_timeout(Some(COMMAND_LIMIT)).map_err(broken)?;
        stream.set_write_timeout(Some(COMMAND_LIMIT)).map_err(broken)?;
        let mut reader = BufReader::new(stream.try_clone().map_err(broken)?);
        let mut greeting = String::new();
        reader.read_line(&mut greeting).map_err(broken)?;
        if !greeting.contains("\"QMP\"") {
            let what = io::Error::new(io::ErrorKind::InvalidData, format!("its greeting was {greeting:?}"));
            return Err(broken(what));
        }
        let mut monitor = Self { qmp: Qmp::new(Stream::new(reader, stream)), health: health.clone() };
        monitor.execute(&qmp::qmp_capabilities { enable: None })?;
        Ok(monitor)
    }

    /// Executes a command.
    ///
    /// # Errors
    /// QEMU refuses it, does not answer within 10 s, or exits.
    pub fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok, QmpError> {
        self.qmp.execute(command).map_err(|error| match error {
            ExecuteError::Qapi(source) => QmpError::Refused { command: C::NAME, source },
            ExecuteError::Io(error) => QmpError::Broken { error, report: Box::new(self.health.post_mortem()) },
        })
    }
}

/// Connects to a socket that QEMU is about to create.
///
/// # Errors
/// QEMU does not listen within the limit, or exits.
pub fn connect(socket: &Path, health: &Health, limit: Duration) -> Result<UnixStream, QmpError> {
    let end = Instant::now() + limit;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(_) if health.exit().is_none() && Instant::now() < end => thread::sleep(POLL),
            Err(_) => {
                let socket = socket.display().to_string();
                return Err(QmpError::Connect { socket, report: Box::new(health.report()) });
            }
        }
    }
}
