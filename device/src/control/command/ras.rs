//! Protocol errors of CXL.mem, as they appear in the RAS structure. The AER message that reports them to the host is the
//! root port's: over vfio-user a device has no way to send one.

use super::{CommandError, DeviceCommands, Execute, api};
use crate::cxl::ras::Header;

impl Execute for api::InjectUncorrectableErrors {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        if self.errors.iter().any(|error| error.header.len() > Header::default().len()) {
            return Err(CommandError::generic("a header has at most 16 dwords"));
        }
        for error in self.errors {
            let header = std::array::from_fn(|at| error.header.get(at).copied().unwrap_or(0));
            device.inject_uncorrectable(error.r#type, &header);
        }
        Ok(api::Done {})
    }
}

impl Execute for api::InjectCorrectableError {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        device.inject_correctable(self.r#type);
        Ok(api::Done {})
    }
}
