//! The QEMU process: what machine it is, its life, its console.
//!
//! - [`config`]: the machine, as a struct; [`topology`] makes QEMU's arguments of it.
//! - [`learn`]: a firmware-only boot that tells where the BARs are and what the CEDT says.
//! - [`boot`]: the real boot: [`Machine`](boot::Machine).
//! - [`launch`]: all of it in one call.
//! - [`console`]: what the guest kernel says, and which of it is trouble. [`health`]: what is known of the machine's
//!   life, shared by all who wait for it.
//!   [`hang`]: where a machine hangs. [`terminal`]: the console, for people.
//! - [`process`]: the process, tied to the harness's life. [`qmp`]: the monitor.

pub mod boot;
pub mod config;
pub mod console;
pub mod hang;
pub mod health;
pub mod launch;
pub mod learn;
pub mod process;
pub mod qmp;
pub mod terminal;
pub mod topology;
