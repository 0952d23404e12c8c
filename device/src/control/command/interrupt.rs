//! `lose-interrupt`: interrupts that never arrive, so that a driver's other ways to learn of things can be exercised.

use super::{CommandError, DeviceCommands, Execute, api};

impl Execute for api::LoseInterrupt {
    fn execute(self, device: &DeviceCommands) -> Result<api::Pending, CommandError> {
        Ok(api::Pending { left_before: device.lose_interrupt(self.vector, self.count)? })
    }
}
