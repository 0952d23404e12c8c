//! A client of a device's control socket, speaking the device's own types
//! ([`cxl_cram_device::control::api`]).
//!
//! Own code because `qapi::Qmp` knows only QEMU's events and gives up on any other.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cxl_cram_device::control::api::{Command, Execute, Message, Negotiation, Notification};
use serde::Serialize;
use serde_json::Value;

/// How often a wait for an answer looks whether to give up.
const TICK: Duration = Duration::from_millis(100);

/// A connection that has negotiated.
#[derive(Debug)]
pub(crate) struct Control {
    lines: BufReader<UnixStream>,
}

impl Control {
    /// Connects. `give_up` is asked while the device does not answer.
    pub(crate) fn connect(path: &Path, give_up: &dyn Fn() -> bool) -> Result<Self> {
        let stream = UnixStream::connect(path).context("the device's control socket does not answer")?;
        stream.set_read_timeout(Some(TICK))?;
        let mut control = Self { lines: BufReader::new(stream) };
        control.line(give_up).context("the control socket sent no greeting")?;
        control.execute(&Negotiation::default(), give_up)?;
        Ok(control)
    }

    /// Executes one command and returns its answer. After an error the connection cannot be used again.
    pub(crate) fn execute<C: Command + Serialize>(&mut self, command: &C, give_up: &dyn Fn() -> bool) -> Result<C::Ok> {
        self.ask(command, give_up).with_context(|| format!("control command {}", C::NAME))
    }

    fn ask<C: Command + Serialize>(&mut self, command: &C, give_up: &dyn Fn() -> bool) -> Result<C::Ok> {
        writeln!(self.lines.get_mut(), "{}", serde_json::to_string(&Execute::<&C>::from(command))?)?;
        // Events may come before the answer.
        loop {
            let message: Message<C::Ok> = serde_json::from_slice(&self.line(give_up)?)?;
            if let Some(answer) = message.answer().map_err(|refusal| anyhow!(refusal.desc))? {
                return Ok(answer);
            }
        }
    }

    /// Waits for the next event. None when `give_up` says so, or when the device is gone.
    pub(crate) fn event(&mut self, give_up: &dyn Fn() -> bool) -> Result<Option<Notification>> {
        while let Ok(line) = self.line(give_up) {
            if let Message::Event(event) = serde_json::from_slice::<Message<Value>>(&line)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn line(&mut self, give_up: &dyn Fn() -> bool) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.lines.read_until(b'\n', &mut line) {
                Ok(_) => {
                    ensure!(line.ends_with(b"\n"), "the control socket closed");
                    return Ok(line);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if give_up() {
                        bail!("the device did not answer in time");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
