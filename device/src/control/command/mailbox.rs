//! `fail-command` and `delay-command`: mailbox commands that fail or are late, so that a driver's error paths and timeouts
//! can be exercised.

use std::time::Duration;

use super::{CommandError, DeviceCommands, Execute, api};
use crate::cxl::{delay::CommandDelay, failure::CommandFailure};

impl Execute for api::FailCommand {
    fn execute(self, device: &DeviceCommands) -> Result<api::Pending, CommandError> {
        let Self { opcode, return_code, count, background } = self;
        let left_before = device.fail_command(CommandFailure { opcode, return_code, count, background })?;
        Ok(api::Pending { left_before })
    }
}

impl Execute for api::DelayCommand {
    fn execute(self, device: &DeviceCommands) -> Result<api::Pending, CommandError> {
        let Self { opcode, milliseconds, phase, count } = self;
        let by = Duration::from_millis(milliseconds);
        let left_before = device.delay_command(CommandDelay { opcode, by, phase, count })?;
        Ok(api::Pending { left_before })
    }
}
