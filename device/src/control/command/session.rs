//! `query-commands`, `query-version`, `quit`.

use serde_json::{Value, json};

use super::{Arguments, CommandError, DeviceCommands, TABLE, nothing};
use crate::control::protocol;

pub(super) fn query_commands(_: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    arguments.finish()?;
    Ok(TABLE.iter().map(|(name, _)| json!({ "name": name })).collect())
}

pub(super) fn query_version(_: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    arguments.finish()?;
    Ok(protocol::version())
}

/// Stops the device. The client is answered before.
pub(super) fn quit(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    arguments.finish()?;
    device.stop.trigger();
    Ok(nothing())
}
