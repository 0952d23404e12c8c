//! QEMU's monitor.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use qapi::{Command, ExecuteError, Qmp, Stream, qmp};
use thiserror::Error;

use super::health::{Health, Report};

/// Between two tries to connect to a socket that QEMU has not made yet.
const POLL: Duration = Duration::from_millis(2);
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Why the monitor did not do what it was asked.
#[derive(Debug, Error)]
pub enum QmpError {
    /// QEMU does not listen.
    #[error("see why QEMU does not listen on {socket}\n{report}")]
    Connect {
        /// The socket.
        socket: String,
        /// What the machine has to say.
        report: Box<Report>,
    },
    /// The connection broke or took too long.
    #[error("see why QEMU's monitor does not answer: {error}\n{report}")]
    Broken {
        /// Why. Told in the message, before the report.
        error: io::Error,
        /// What the machine has to say.
        report: Box<Report>,
    },
    /// QEMU said no.
    #[error("QEMU refuses {command}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What it said.
        source: qapi::Error,
    },
}

/// Where a machine's monitor is, for those who outlive a borrow of the machine.
#[derive(Clone)]
pub struct Door {
    socket: PathBuf,
    health: Health,
    limit: Duration,
}

impl Door {
    /// The monitor on this socket, of the machine with this health, which may take so long to answer a connection.
    pub(super) fn new(socket: PathBuf, health: Health, limit: Duration) -> Self {
        Self { socket, health, limit }
    }

    /// A connection. There can be one at a time.
    ///
    /// # Errors
    /// QEMU has ended, or another connection is open and stays so.
    pub fn open(&self) -> Result<Monitor, QmpError> {
        Monitor::connect(&self.socket, &self.health, self.limit)
    }
}

/// A connection to the monitor, past the greeting.
pub struct Monitor {
    qmp: Qmp<Stream<BufReader<UnixStream>, UnixStream>>,
    health: Health,
}

impl Monitor {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// QEMU does not listen within the limit, ends, or does not speak QMP.
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
    /// QEMU refuses it, does not answer, or ends.
    pub fn execute<C: Command>(&mut self, command: &C) -> Result<C::Ok, QmpError> {
        self.qmp.execute(command).map_err(|error| match error {
            ExecuteError::Qapi(source) => QmpError::Refused { command: C::NAME, source },
            ExecuteError::Io(error) => QmpError::Broken { error, report: Box::new(self.health.post_mortem()) },
        })
    }
}

/// Connects to a socket that QEMU is about to make.
///
/// # Errors
/// It does not within the limit, or ends.
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
