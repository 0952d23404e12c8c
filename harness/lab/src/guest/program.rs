//! A background program in the guest.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use cxl_cram_wire::protocol::{Bytes, Call, Event, Exit, Stream};

use super::channel::{ChannelError, Followed};
use super::client::{Guest, GuestError, SHORT};

const SIGKILL: i32 = 9;

/// A spawned program. Dropping this kills it.
#[derive(Debug)]
pub struct Spawned {
    guest: Guest,
    what: String,
    child: u64,
    pid: u32,
    events: Receiver<Event>,
    exit: Option<Exit>,
}

/// An event of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A line of output.
    Line(Stream, String),
    /// The exit. This is the last event; further calls return it again.
    Exited(Exit),
}

impl Spawned {
    pub(super) fn new(guest: Guest, what: String, child: u64, pid: u32) -> Self {
        let events = guest.channel().follow(Followed::Program(child));
        Self { guest, what, child, pid, events, exit: None }
    }

    /// The command line.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The process ID in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Writes to the program's standard input.
    ///
    /// # Errors
    /// The program has exited.
    pub fn send(&self, data: impl Into<Bytes>) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::Stdin { child: self.child, data: data.into() }, SHORT)
    }

    /// Closes the program's standard input, also of a program that has exited.
    ///
    /// # Errors
    /// The machine died.
    pub fn close_stdin(&self) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::CloseStdin { child: self.child }, SHORT)
    }

    /// Sends a signal to the program and its children.
    ///
    /// # Errors
    /// The program has exited.
    pub fn signal(&self, signal: i32) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::Kill { child: self.child, signal }, SHORT)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// No event within the limit, or the machine died.
    pub fn next(&mut self, limit: Duration) -> Result<Next, GuestError> {
        self.next_within(self.guest.patient(limit))
    }

    /// The end of a wait that begins now.
    pub(super) fn end_of(&self, limit: Duration) -> Instant {
        Instant::now() + self.guest.patient(limit)
    }

    /// Like [`Self::next`], with a limit that already includes the patience.
    pub(super) fn next_within(&mut self, limit: Duration) -> Result<Next, GuestError> {
        if let Some(exit) = self.exit {
            return Ok(Next::Exited(exit));
        }
        match self.guest.channel().wait(&self.events, limit).map_err(|error| self.guest.error(&self.what, error))? {
            Event::Output { stream, line, .. } => Ok(Next::Line(stream, line)),
            Event::Exited { exit, .. } => {
                self.exit = Some(exit);
                Ok(Next::Exited(exit))
            }
            Event::Trace { .. } => Err(self.guest.error(&self.what, ChannelError::Closed)),
        }
    }

    /// Waits for the program's exit and discards its output.
    ///
    /// # Errors
    /// No exit within the limit, or the machine died.
    pub fn wait(&mut self, limit: Duration) -> Result<Exit, GuestError> {
        let end = self.end_of(limit);
        loop {
            if let Next::Exited(exit) = self.next_within(end.saturating_duration_since(Instant::now()))? {
                return Ok(exit);
            }
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.exit.is_none()
            && let Err(error) = self.signal(SIGKILL)
        {
            tracing::debug!("{} was not killed: {error}", self.what);
        }
        self.guest.channel().forget(&Followed::Program(self.child));
    }
}
