//! Runs QEMU: configuration, boot, monitor and console.
//!
//! - [`config`]: the machine's configuration; [`topology`] turns it into QEMU's arguments.
//! - [`learn`]: the firmware-only boot that finds the BARs and the CEDT. [`decoders`]: those that the firmware commits.
//! - [`boot`]: the kernel boot, with [`Machine`](boot::Machine).
//! - [`launch`]: both boots in one call.
//! - [`console`]: finds trouble on the guest's console.
//! - [`kvm`]: checks whether KVM can be used. [`address_space`]: checks whether the windows fit.
//! - [`hang`]: diagnoses a hung machine. [`terminal`]: attaches the user's terminal to the console.
//! - [`process`]: the process, tied to the harness's life. [`qmp`]: the monitor.

mod address_space;
pub mod boot;
pub mod config;
pub mod console;
pub mod decoders;
mod dvsec;
pub mod hang;
pub mod kvm;
pub mod launch;
pub mod learn;
pub mod process;
pub mod qmp;
pub mod terminal;
pub mod topology;

pub(crate) use address_space::end_of_memory;
