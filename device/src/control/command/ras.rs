//! Protocol errors of CXL.mem, as they stand in the RAS structure. The AER message that tells the host of them is the
//! root port's: over vfio-user a device has no way to send one.

use serde::Deserialize;
use serde_json::Value;

use super::{Arguments, CommandError, DeviceCommands, nothing};
use crate::cxl::ras::{self, Header};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Errors {
    errors: Vec<Uncorrectable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Uncorrectable {
    r#type: ras::Uncorrectable,
    header: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Correctable {
    r#type: ras::Correctable,
}

/// `errors`: each with its type and the dwords of its header, at most 16. The header of the first is kept.
pub(super) fn uncorrectable(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    arguments.take("path");
    let Errors { errors } = std::mem::take(arguments).into()?;
    if errors.iter().any(|error| error.header.len() > Header::default().len()) {
        return Err(CommandError::generic("a header has at most 16 dwords"));
    }
    for error in errors {
        let header = std::array::from_fn(|at| error.header.get(at).copied().unwrap_or(0));
        device.injector.inject_uncorrectable(error.r#type, &header);
    }
    Ok(nothing())
}

/// `type`.
pub(super) fn correctable(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    arguments.take("path");
    let Correctable { r#type } = std::mem::take(arguments).into()?;
    device.injector.inject_correctable(r#type);
    Ok(nothing())
}
