//! `set-physical`, `set-watermarks`: the medium changed while it runs.

use serde_json::{Value, json};

use super::{Arguments, CommandError, DeviceCommands, nothing};
use crate::hdm::media::Watermarks;

/// `size`: media that exists from now on; returns what is in force. Shrinking below what is used loses nothing.
pub(super) fn set_physical(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let size = arguments.bytes("size")?;
    arguments.finish()?;
    device.media.set_physical(size)?;
    Ok(json!({ "physical": device.media.occupancy_now().usage.physical }))
}

/// `low`, `high`: thresholds on free media, in bytes or per cent of the physical size.
pub(super) fn set_watermarks(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let watermarks = Watermarks { low: arguments.threshold("low")?, high: arguments.threshold("high")? };
    arguments.finish()?;
    device.media.set_watermarks(watermarks)?;
    Ok(nothing())
}
