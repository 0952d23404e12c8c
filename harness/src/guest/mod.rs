//! What goes into the guest, and how to talk to it: initramfs, ACPI tables, the agent's channel.
//!
//! - [`initramfs`] and [`acpi`]: the bytes that QEMU gets as `-initrd`.
//! - [`channel`]: requests and answers over the agent's port. [`client`]: [`Guest`](client::Guest), the same with
//!   names, limits and errors that show the console.
//! - [`program`], [`memory`], [`trace`]: long-lived things in the guest.

pub mod acpi;
pub mod channel;
pub mod client;
pub mod initramfs;
pub mod memory;
pub mod program;
pub mod trace;
