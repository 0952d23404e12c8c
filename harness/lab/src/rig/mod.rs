//! What a guest is booted on: devices that serve, and a machine that is described and not yet running.
//!
//! - [`shape`]: the devices and the machine that a scenario asks for. [`stage`]: these, started and described.
//! - [`device`]: the device's process. [`control`]: its control socket. [`device_events`]: what it reports.
//! - [`watchdog`]: ends a machine that is late.

pub(crate) mod control;
pub mod device;
pub mod device_events;
pub mod shape;
pub mod stage;
pub(crate) mod watchdog;

use std::fs::OpenOptions;

/// Why no scenario can run on this host, if that is so.
pub fn obstacle() -> Option<String> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => None,
        Err(error) => {
            Some(format!("/dev/fuse cannot be opened ({error}): load the fuse module and allow this user to use it"))
        }
    }
}
