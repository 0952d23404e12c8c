//! `query-commands`, `query-version`, `quit`.

use super::{CommandError, DeviceCommands, Execute, TABLE, api};
use crate::control::protocol;

impl Execute for api::QueryCommands {
    fn execute(self, _: &DeviceCommands) -> Result<Vec<api::CommandName>, CommandError> {
        Ok(TABLE.iter().map(|entry| api::CommandName { name: entry.name.to_owned() }).collect())
    }
}

impl Execute for api::QueryVersion {
    fn execute(self, _: &DeviceCommands) -> Result<api::Version, CommandError> {
        Ok(protocol::version())
    }
}

impl Execute for api::Quit {
    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        device.quit();
        Ok(api::Done {})
    }
}
