//! The conversation with a device's control socket.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::device_events::DeviceEvent;

/// How often a wait for an answer looks whether to give up.
const TICK: Duration = Duration::from_millis(100);

/// A connection that has negotiated.
#[derive(Debug)]
pub(super) struct Control {
    lines: BufReader<UnixStream>,
}

impl Control {
    /// Connects. `give_up` is asked while the device does not answer.
    pub(super) fn connect(path: &Path, give_up: &dyn Fn() -> bool) -> Result<Self> {
        let stream = UnixStream::connect(path).context("the device's control socket does not answer")?;
        stream.set_read_timeout(Some(TICK))?;
        let mut control = Self { lines: BufReader::new(stream) };
        control.line(give_up).context("the control socket did not greet")?;
        control.execute("qmp_capabilities", json!({}), give_up)?;
        Ok(control)
    }

    /// Executes one command and returns what it returned. After an error the connection is of no more use.
    pub(super) fn execute(&mut self, command: &str, arguments: Value, give_up: &dyn Fn() -> bool) -> Result<Value> {
        self.ask(command, arguments, give_up).with_context(|| format!("control command {command}"))
    }

    fn ask(&mut self, command: &str, arguments: Value, give_up: &dyn Fn() -> bool) -> Result<Value> {
        writeln!(self.lines.get_mut(), "{}", json!({ "execute": command, "arguments": arguments }))?;
        // Events may come before the answer.
        loop {
            let mut message: Value = serde_json::from_slice(&self.line(give_up)?)?;
            if let Some(error) = message.get("error") {
                return Err(anyhow!("{}", error["desc"].as_str().unwrap_or("it was refused")));
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Waits for the next event. None when it was given up, or the device is gone.
    pub(super) fn event(&mut self, give_up: &dyn Fn() -> bool) -> Result<Option<DeviceEvent>> {
        while let Ok(line) = self.line(give_up) {
            let mut message: Value = serde_json::from_slice(&line)?;
            if let Some(name) = message["event"].as_str().map(str::to_owned) {
                return Ok(Some(DeviceEvent { name, data: message["data"].take() }));
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
