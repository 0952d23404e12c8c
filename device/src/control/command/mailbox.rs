//! `fail-command`: mailbox commands that fail, so that a driver's error paths can be walked.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Arguments, CommandError, DeviceCommands};
use crate::cxl::failure::CommandFailure;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Failure {
    opcode: u16,
    return_code: u16,
    #[serde(default = "one")]
    count: u64,
    #[serde(default)]
    background: bool,
}

fn one() -> u64 {
    1
}

/// `opcode`, `return-code`, `count`, `background`: returns how many were left of what was told before.
pub(super) fn fail(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let Failure { opcode, return_code, count, background } = std::mem::take(arguments).into()?;
    let left = device.injector.fail_command(CommandFailure { opcode, return_code, count, background });
    let left = left.map_err(|why| CommandError::generic(why.to_string()))?;
    Ok(json!({ "left-before": left }))
}
