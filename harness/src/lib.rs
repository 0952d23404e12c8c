//! Boots a guest kernel on the compressed CXL device and holds what the kernel did against snapshots.
//!
//! - [`provision`]: QEMU, the kernel, the guest's program, the corpus: fetched, built and cached.
//! - [`guest`]: what goes into the guest: initramfs, ACPI tables, the agent's channel.
//! - [`machine`]: the QEMU process.
//! - [`cli`]: the command line.
//! - [`interrupt`]: what Ctrl-C does, which ends everything that was started.
//! - [`scenario`]: scenarios, normalising, snapshots, reports.

// In the program, not in its tests: what a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

mod child;
pub mod cli;
pub mod guest;
pub mod interrupt;
pub mod machine;
pub mod provision;
pub mod scenario;

// The scenario files lie outside this crate's folder and name it as anyone would.
extern crate self as cxl_cram_harness;
