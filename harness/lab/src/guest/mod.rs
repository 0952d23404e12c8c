//! Builds the guest's initramfs and ACPI tables, and talks to its agent.
//!
//! - [`initramfs`] and [`acpi`]: the bytes that QEMU gets as `-initrd`.
//! - [`channel`]: requests and answers over the agent's port. [`client`]: [`Guest`](client::Guest), a method for each
//!   request, with limits and errors that show the console.
//! - [`program`], [`memory`], [`trace`]: programs, memory and traces that live in the guest.

pub mod acpi;
pub mod channel;
pub mod client;
pub mod initramfs;
pub mod memory;
mod modules;
pub mod program;
pub mod trace;
