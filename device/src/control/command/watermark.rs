//! `inject-low-watermark`, `inject-high-watermark`: the interrupts by hand.

use super::{CommandError, DeviceCommands, Execute, api};
use crate::hdm::media::Crossing;

impl Execute for api::InjectLowWatermark {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        device.inject_crossing(Crossing::Low);
        Ok(api::Done {})
    }
}

impl Execute for api::InjectHighWatermark {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        device.inject_crossing(Crossing::High);
        Ok(api::Done {})
    }
}
