//! What goes into the guest, and how to talk to it: initramfs, ACPI tables, the agent's channel.

pub mod acpi;
pub mod initramfs;
