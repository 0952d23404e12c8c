//! Mailbox commands that are late on request.
//!
//! A driver gives a command so long and then goes on without it, and the device may still carry it out. A tester can
//! therefore make the next commands with an opcode late: either before they are executed, with the doorbell set meanwhile,
//! or, for commands that continue in the background, before the operation touches the medium. A request lasts until it is
//! used up or replaced, across resets and power cycles; a reset ends the delays under way.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::mailbox;

/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(600);

/// Which commands are to be late, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandDelay {
    /// Command set and command.
    pub opcode: u16,
    /// By how much: from 1 ms to [`MAX_DELAY`].
    pub by: Duration,
    /// What is late.
    pub phase: Phase,
    /// How many commands are late. 0 ends an earlier request for this opcode.
    pub count: u64,
}

/// The part of a command that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The background operation: it counts as running, and begins its work only after the delay. Commands that start none
    /// are neither late nor counted.
    Background,
    /// The command itself: the doorbell stays set, and the command is executed only after the delay.
    Doorbell,
}

/// Why commands cannot be made late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayError {
    /// The device has no such command.
    #[error("the device has no command {0:#06x}: the Command Effects Log lists those it has")]
    Unknown(u16),
    /// The command does not continue in the background.
    #[error("command {0:#06x} does not go on in the background: delay its doorbell")]
    NotInBackground(u16),
    /// The delay is none, or longer than [`MAX_DELAY`].
    #[error("a delay of {} ms is out of range: give 1 to {} ms", .0.as_millis(), MAX_DELAY.as_millis())]
    OutOfRange(Duration),
}

/// Requested delays, by opcode.
#[derive(Default)]
pub(super) struct Delays(Mutex<BTreeMap<u16, CommandDelay>>);

impl Delays {
    /// Makes the next commands with this opcode late, replacing any earlier request for it. Returns how many delays of the
    /// earlier request were still pending.
    pub(super) fn request(&self, delay: CommandDelay) -> Result<u64, DelayError> {
        let CommandDelay { opcode, by, phase, count } = delay;
        let command = mailbox::command(opcode).ok_or(DelayError::Unknown(opcode))?;
        if phase == Phase::Background && !command.goes_on_in_background() {
            return Err(DelayError::NotInBackground(opcode));
        }
        if by < Duration::from_millis(1) || by > MAX_DELAY {
            return Err(DelayError::OutOfRange(by));
        }
        let mut delays = self.0.lock();
        let before = if count == 0 { delays.remove(&opcode) } else { delays.insert(opcode, delay) };
        Ok(before.map_or(0, |before| before.count))
    }

    /// How late this phase of a command of this opcode is, if it is. Counts it.
    pub(super) fn take(&self, opcode: u16, phase: Phase) -> Option<Duration> {
        let mut delays = self.0.lock();
        let delay = delays.get_mut(&opcode).filter(|delay| delay.phase == phase)?;
        delay.count -= 1;
        let (by, left) = (delay.by, delay.count);
        if left == 0 {
            delays.remove(&opcode);
        }
        Some(by)
    }
}
