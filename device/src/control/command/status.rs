//! `query-status`: the medium's occupancy and settings.

use super::{CommandError, DeviceCommands, Execute, api};

impl Execute for api::QueryStatus {
    fn execute(self, device: &DeviceCommands) -> Result<api::Status, CommandError> {
        Ok(device.status(self.flush))
    }
}
