//! A CXL Type-3 memory device that really compresses what the guest stores.
//!
//! One room a layer, and each knows only the rooms listed before it:
//!
//! - [`sandbox`]: what the process gives up before it serves.
//! - [`guardian`]: the process that tidies up after it.
//! - [`store`]: 4 KiB blocks in, compressed bytes in a bounded arena out. Knows no CXL.
//! - [`shape`]: how large a device can be, and the units of that.
//! - [`hdm`]: the medium behind the HDM (store, poison, watermarks) and the windows through which guest loads and
//!   stores reach it.
//! - [`cxl`]: the PCI function as the specification describes it: configuration space, DVSECs, registers, mailbox.
//!   Knows no sockets.
//! - [`vfio_user`]: the wire to QEMU. Knows no CXL.
//! - [`control`]: the QMP-style control socket.
//! - [`serve`]: all of these as one device.
//! - [`mod@bench`]: measures data without a guest; of the rooms above it knows the store and the shape.
//! - [`cli`]: the command line.

// In the program, not in its tests: what a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub mod bench;
pub mod cli;
pub mod control;
pub mod cxl;
pub mod guardian;
pub mod hdm;
pub mod sandbox;
pub mod serve;
pub mod shape;
pub mod store;
pub mod vfio_user;
