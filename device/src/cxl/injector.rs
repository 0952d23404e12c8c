//! Events and errors that a tester can inject into the function.

use super::{
    Type3,
    delay::{CommandDelay, DelayError},
    event_record::Record,
    events::Log,
    failure::{CommandFailure, FailureError},
    lost_interrupts::LoseError,
    ras::{Correctable, Header, Uncorrectable},
};
use crate::hdm::media::Crossing;

/// Reports events that have not happened, makes commands fail or be late that would have worked, and loses interrupts. The medium is
/// left alone.
pub trait Injector: Send + Sync {
    /// A crossing: the interrupt of the watermark and its event record.
    fn inject_crossing(&self, crossing: Crossing);
    /// A record in an event log.
    fn inject_event(&self, log: Log, record: Record);
    /// An uncorrectable protocol error and its header in the RAS structure. Raises no interrupt.
    fn inject_uncorrectable(&self, error: Uncorrectable, header: &Header);
    /// A correctable protocol error in the RAS structure. Raises no interrupt.
    fn inject_correctable(&self, error: Correctable);
    /// Makes mailbox commands fail. Returns how many failures of this opcode were still outstanding before.
    fn fail_command(&self, failure: CommandFailure) -> Result<u64, FailureError>;
    /// Makes mailbox commands late. Returns how many delays of this opcode were still outstanding before.
    fn delay_command(&self, delay: CommandDelay) -> Result<u64, DelayError>;
    /// Loses the next interrupts of a vector. Returns how many of this vector were still to be lost before.
    fn lose_interrupt(&self, vector: u16, count: u64) -> Result<u64, LoseError>;
}

impl Injector for Type3 {
    fn inject_crossing(&self, crossing: Crossing) {
        self.device.state().crossed(crossing);
    }

    fn inject_event(&self, log: Log, record: Record) {
        self.device.state().log(log, record);
    }

    fn inject_uncorrectable(&self, error: Uncorrectable, header: &Header) {
        self.component.uncorrectable(error, header);
    }

    fn inject_correctable(&self, error: Correctable) {
        self.component.correctable(error);
    }

    fn fail_command(&self, failure: CommandFailure) -> Result<u64, FailureError> {
        self.device.state().failures.request(failure)
    }

    fn delay_command(&self, delay: CommandDelay) -> Result<u64, DelayError> {
        self.device.state().delays.request(delay)
    }

    fn lose_interrupt(&self, vector: u16, count: u64) -> Result<u64, LoseError> {
        self.msix.lose(vector, count)
    }
}
