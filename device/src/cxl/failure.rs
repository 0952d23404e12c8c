//! Mailbox commands that fail on request.
//!
//! No working device exercises a driver's error paths. A tester can therefore make the next commands with an opcode end
//! with a return code: either at once, without being executed, or, for commands that continue in the background, at the end
//! of an operation that does nothing. A request lasts until it is used up or replaced, across resets and power cycles.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::mailbox::{self, return_code::ReturnCode};

/// Which commands are to fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    /// Command set and command.
    pub opcode: u16,
    /// The return code (CXL 3.1, table 8-34): any but success and "background operation started".
    pub return_code: u16,
    /// How many commands fail. 0 ends an earlier request for this opcode.
    pub count: u64,
    /// The background operation fails instead of the command that starts it. Commands that start none are not counted.
    pub background: bool,
}

/// Why commands cannot be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureError {
    /// The device has no such command.
    #[error("the device has no command {0:#06x}: the Command Effects Log lists those it has")]
    Unknown(u16),
    /// The command does not continue in the background.
    #[error("command {0:#06x} does not go on in the background: have the command itself fail")]
    NotInBackground(u16),
    /// The return code does not stand for a failure.
    #[error("return code {0} is no failure: give one from 2 up")]
    NoFailure(u16),
}

/// The point at which a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// When the command is received.
    Command,
    /// When the operation that the command started ends.
    Background,
}

/// Requested failures, by opcode.
#[derive(Default)]
pub(super) struct Failures(Mutex<BTreeMap<u16, CommandFailure>>);

impl Failures {
    /// Makes the next commands with this opcode fail, replacing any earlier request for it. Returns how many failures of the
    /// earlier request were still pending.
    pub(super) fn request(&self, failure: CommandFailure) -> Result<u64, FailureError> {
        let CommandFailure { opcode, return_code, count, background } = failure;
        let command = mailbox::command(opcode).ok_or(FailureError::Unknown(opcode))?;
        if background && !command.goes_on_in_background() {
            return Err(FailureError::NotInBackground(opcode));
        }
        if return_code <= ReturnCode::BackgroundStarted as u16 {
            return Err(FailureError::NoFailure(return_code));
        }
        let mut failures = self.0.lock();
        let before = if count == 0 { failures.remove(&opcode) } else { failures.insert(opcode, failure) };
        Ok(before.map_or(0, |before| before.count))
    }

    /// The return code with which a command of this opcode fails at this point, if it does. Counts it.
    pub(super) fn take(&self, opcode: u16, point: Point) -> Option<u16> {
        let mut failures = self.0.lock();
        let failure = failures.get_mut(&opcode)?;
        if failure.background != (point == Point::Background) {
            return None;
        }
        failure.count -= 1;
        let (code, left) = (failure.return_code, failure.count);
        if left == 0 {
            failures.remove(&opcode);
        }
        Some(code)
    }
}
