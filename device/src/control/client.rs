//! The server's side of one client's connection: bytes in, requests, answers, bytes out. Never blocks.
//!
//! Own code, because QMP libraries (`qapi`, the `qemu.qmp` Python package) are clients: none reads requests.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    api::{Negotiation, Notification},
    protocol::{self, CommandError, Commands, Request},
};

/// The longest request, in bytes.
pub(super) const MAX_REQUEST: usize = 64 * 1024;

/// Bytes that may wait for a client. A client with more is dropped.
const MAX_OUTPUT: usize = 256 * 1024;

/// A connected client.
pub(super) struct Client {
    stream: UnixStream,
    /// Received and not yet parsed; at most [`MAX_REQUEST`] and one read.
    input: Vec<u8>,
    /// Not yet sent.
    output: Vec<u8>,
    negotiated: bool,
    /// To be closed once the output is sent: framing is lost.
    closing: bool,
}

/// The client is to be dropped.
#[derive(Debug)]
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Client {
    /// Takes a non-blocking connection and greets it.
    pub(super) fn new(socket: OwnedFd) -> Self {
        let mut client =
            Self { stream: socket.into(), input: Vec::new(), output: Vec::new(), negotiated: false, closing: false };
        client.send(&protocol::greeting());
        client
    }

    /// Refuses a connection with a reason, as far as that does not block.
    pub(super) fn refuse(socket: OwnedFd, why: &str) {
        let mut client =
            Self { stream: socket.into(), input: Vec::new(), output: Vec::new(), negotiated: false, closing: true };
        client.send(&protocol::answer(Err(CommandError::generic(why)), None));
        let _ = client.flush();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether output is waiting to be sent. If not, the client is polled for input.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.output.is_empty()
    }

    /// Sends an event, if the client has negotiated. A client too slow for its events is dropped.
    pub(super) fn event(&mut self, event: &Notification) -> Result<(), Gone> {
        if self.negotiated {
            self.send(event);
        }
        if self.output.len() > MAX_OUTPUT { Err(Gone) } else { Ok(()) }
    }

    /// Does all that can be done without waiting. Requests are read only while nothing waits to be sent, so that a
    /// client that asks and does not listen holds up itself alone.
    pub(super) fn advance(&mut self, commands: &dyn Commands) -> Result<(), Gone> {
        loop {
            self.flush()?;
            if self.wants_to_send() {
                return Ok(());
            }
            if self.closing {
                return Err(Gone);
            }
            if !self.answer_next(commands) && !self.receive()? {
                return Ok(());
            }
        }
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(Gone),
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Reads once. False when there is nothing to read now.
    fn receive(&mut self) -> Result<bool, Gone> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Gone),
            Ok(got) => {
                self.input.extend_from_slice(&buffer[..got]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(Gone),
        }
    }

    /// Answers the next request in the input. False when there is no whole one.
    fn answer_next(&mut self, commands: &dyn Commands) -> bool {
        let answer = match self.next_value() {
            None => return false,
            Some(Err(error)) => protocol::answer(Err(error), None),
            Some(Ok(value)) => match protocol::parse_request(value) {
                Err((error, id)) => protocol::answer(Err(error), id),
                Ok(Request { name, arguments, id }) => {
                    let result = match (self.negotiated, name.as_str()) {
                        (false, "qmp_capabilities") => self.negotiate(arguments),
                        (false, _) => Err(CommandError::not_found("negotiate with \"qmp_capabilities\" first")),
                        (true, "qmp_capabilities") => Err(CommandError::not_found("negotiation is already done")),
                        (true, name) => commands.execute(name, arguments),
                    };
                    protocol::answer(result, id)
                }
            },
        };
        self.send(&answer);
        true
    }

    fn negotiate(&mut self, arguments: protocol::Arguments) -> Result<Value, CommandError> {
        if !arguments.into::<Negotiation>()?.enable.is_empty() {
            return Err(CommandError::generic("none of these capabilities is offered"));
        }
        self.negotiated = true;
        Ok(json!({}))
    }

    /// The next JSON value. Values need no newline between them, and may have some inside, as in QMP.
    fn next_value(&mut self) -> Option<Result<Value, CommandError>> {
        let mut values = serde_json::Deserializer::from_slice(&self.input).into_iter::<Value>();
        let (result, used) = match values.next() {
            // Nothing but white space.
            None => {
                self.input.clear();
                return None;
            }
            Some(Ok(value)) => (Ok(value), values.byte_offset()),
            Some(Err(error)) if error.is_eof() && self.input.len() <= MAX_REQUEST => return None,
            Some(Err(error)) if error.is_eof() => {
                self.closing = true;
                let why = format!("a request is at most {MAX_REQUEST} bytes long");
                (Err(CommandError::generic(why)), self.input.len())
            }
            Some(Err(error)) => {
                // Where the next request begins is a guess: the next line.
                let line = self.input.iter().position(|byte| *byte == b'\n').map_or(self.input.len(), |end| end + 1);
                (Err(CommandError::generic(format!("this is not JSON: {error}"))), line)
            }
        };
        self.input.drain(..used);
        Some(result)
    }

    fn send(&mut self, message: &impl Serialize) {
        // The messages have string keys and no failing parts: a write to memory is all that could fail, and does not.
        if serde_json::to_writer(&mut self.output, message).is_ok() {
            self.output.extend_from_slice(b"\r\n");
        }
    }
}
