//! The device's part of QEMU's command line.

use std::path::Path;

use serde_json::{Value, json};

/// Milliseconds that QEMU waits for an answer of the device: an hour (`x-msg-timeout`, a `uint32` that QEMU hands on as an
/// `int`; its own default is 5000).
///
/// After that long QEMU gives the device up for good, and the guest with it. A device that has died is noticed without it: its
/// socket closes. So it only matters for a device that stands still and will go on, in a debugger, in a frozen cgroup or on a
/// host that swaps.
pub const MESSAGE_TIMEOUT_MS: u32 = 60 * 60 * 1000;

/// The value of QEMU's `-device` that attaches the device behind this socket (an absolute path) to a bus.
pub fn vfio_user_pci(bus: &str, socket: &Path) -> Value {
    json!({
        "driver": "vfio-user-pci",
        "bus": bus,
        "x-msg-timeout": MESSAGE_TIMEOUT_MS,
        "socket": { "type": "unix", "path": socket },
    })
}
