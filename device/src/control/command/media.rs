//! `set-physical`, `set-watermarks`: the medium changed while it runs.

use super::{CommandError, DeviceCommands, Execute, api};
use crate::hdm::media::Watermarks;

impl Execute for api::SetPhysical {
    fn execute(self, device: &DeviceCommands) -> Result<api::Physical, CommandError> {
        Ok(api::Physical { physical: device.set_physical(self.size)? })
    }
}

impl Execute for api::SetWatermarks {
    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        device.set_watermarks(Watermarks { low: self.low, high: self.high })?;
        Ok(api::Done {})
    }
}
