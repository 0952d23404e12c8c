//! A program that lives in the guest.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use cxl_cram_guest::protocol::{Bytes, Call, Event, Exit, Stream};

use super::channel::{ChannelError, Followed};
use super::client::{Guest, GuestError, SHORT};

const SIGKILL: i32 = 9;

/// A spawned program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Spawned {
    guest: Guest,
    what: String,
    child: u64,
    pid: u32,
    events: Receiver<Event>,
    exit: Option<Exit>,
}

/// What a program does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It wrote a line.
    Line(Stream, String),
    /// It ended. This comes last, and again whenever one asks.
    Exited(Exit),
}

impl Spawned {
    pub(super) fn new(guest: Guest, what: String, child: u64, pid: u32) -> Self {
        let events = guest.channel().follow(Followed::Program(child));
        Self { guest, what, child, pid, events, exit: None }
    }

    /// Its command line.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The guest it lives in.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It has ended.
    pub fn send(&self, data: impl Into<Bytes>) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::Stdin { child: self.child, data: data.into() }, SHORT)
    }

    /// Closes its standard input.
    ///
    /// # Errors
    /// It has ended.
    pub fn close_stdin(&self) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::CloseStdin { child: self.child }, SHORT)
    }

    /// Sends a signal to it and its children.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: i32) -> Result<(), GuestError> {
        self.guest.done(&self.what, Call::Kill { child: self.child, signal }, SHORT)
    }

    /// Waits for what it does next.
    ///
    /// # Errors
    /// Nothing within the limit, or the machine died.
    pub fn next(&mut self, limit: Duration) -> Result<Next, GuestError> {
        self.next_within(self.guest.patient(limit))
    }

    /// When a wait that begins now is over.
    pub(super) fn end_of(&self, limit: Duration) -> Instant {
        Instant::now() + self.guest.patient(limit)
    }

    /// With a limit that has patience in it.
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

    /// Waits for its end; lines that it still writes are dropped.
    ///
    /// # Errors
    /// It does not end within the limit, or the machine died.
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
