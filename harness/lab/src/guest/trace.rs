//! Follows the guest kernel's trace events.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use cxl_cram_wire::protocol::{Call, Event};

use super::channel::{ChannelError, Followed};
use super::client::{Guest, GuestError, SHORT};

/// A running ftrace instance. Dropping this stops and removes it.
#[derive(Debug)]
pub struct Trace {
    guest: Guest,
    instance: String,
    events: Receiver<Event>,
    lines: Vec<String>,
    stopped: bool,
}

impl Trace {
    pub(super) fn start(guest: Guest, instance: &str, events: &[&str]) -> Result<Self, GuestError> {
        let events = events.iter().map(|&event| event.to_owned()).collect();
        let call = Call::TraceStart { instance: instance.into(), events };
        guest.done(&format!("trace {instance}"), call, SHORT)?;
        let events = guest.channel().follow(Followed::Trace(instance.into()));
        Ok(Self { guest, instance: instance.into(), events, lines: Vec::new(), stopped: false })
    }

    /// Waits for the next line.
    ///
    /// # Errors
    /// No line within the limit, or the machine died.
    pub fn next(&mut self, limit: Duration) -> Result<&str, GuestError> {
        self.next_within(self.guest.patient(limit))
    }

    /// Like [`Self::next`], with a limit that already includes the patience.
    fn next_within(&mut self, limit: Duration) -> Result<&str, GuestError> {
        let what = format!("a line of trace {}", self.instance);
        let arrived = self.guest.channel().wait(&self.events, limit).map_err(|error| self.guest.error(&what, error))?;
        match arrived {
            Event::Trace { line, .. } => {
                self.lines.push(line);
                Ok(self.lines.last().map_or("", String::as_str))
            }
            Event::Output { .. } | Event::Exited { .. } => Err(self.guest.error(&what, ChannelError::Closed)),
        }
    }

    /// Waits for a line that fits. Earlier lines are kept in [`Self::lines`].
    ///
    /// # Errors
    /// No such line within the limit, or the machine died.
    pub fn wait_for(&mut self, fits: impl Fn(&str) -> bool, limit: Duration) -> Result<String, GuestError> {
        let end = Instant::now() + self.guest.patient(limit);
        loop {
            let line = self.next_within(end.saturating_duration_since(Instant::now()))?;
            if fits(line) {
                return Ok(line.to_owned());
            }
        }
    }

    /// Every line seen so far.
    pub fn lines(&mut self) -> &[String] {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Trace { line, .. } = event {
                self.lines.push(line);
            }
        }
        &self.lines
    }

    /// Stops tracing. Returns all lines.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn stop(mut self) -> Result<Vec<String>, GuestError> {
        self.end()?;
        self.lines();
        Ok(std::mem::take(&mut self.lines))
    }

    fn end(&mut self) -> Result<(), GuestError> {
        self.stopped = true;
        let call = Call::TraceStop { instance: self.instance.clone() };
        self.guest.done(&format!("stop trace {}", self.instance), call, SHORT)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.end()
        {
            tracing::debug!("trace {} was not stopped: {error}", self.instance);
        }
        self.guest.channel().forget(&Followed::Trace(self.instance.clone()));
    }
}
