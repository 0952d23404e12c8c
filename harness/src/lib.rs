//! Boots a guest kernel on the compressed CXL device and holds what the kernel did against snapshots.
//!
//! - [`provision`]: QEMU, the kernel, the guest's program, the corpus: fetched, built and cached.
//! - [`guest`]: what goes into the guest: initramfs, ACPI tables, the agent's channel.
//! - [`machine`]: the QEMU process.
//! - [`scenario`]: scenarios, normalising, snapshots, reports.

pub mod guest;
pub mod machine;
pub mod provision;
pub mod scenario;
