//! `inject-low-watermark`, `inject-high-watermark`: the interrupts by hand.

use serde_json::Value;

use super::{Arguments, CommandError, DeviceCommands, nothing};

pub(super) fn inject_low(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    ignore_path(arguments)?;
    device.injector.inject_low();
    Ok(nothing())
}

pub(super) fn inject_high(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    ignore_path(arguments)?;
    device.injector.inject_high();
    Ok(nothing())
}

/// In QEMU `path` names one of many devices. Here there is one.
fn ignore_path(arguments: &mut Arguments) -> Result<(), CommandError> {
    arguments.take("path");
    arguments.finish()
}
