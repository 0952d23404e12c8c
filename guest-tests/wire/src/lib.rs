//! The language between the harness and the guest's programs. Plain data: no system call, no `unsafe`, so that the
//! harness links the types without the programs.
//!
//! - [`protocol`]: calls to the guest's agent, and its messages: JSON lines over a virtio-serial port.
//! - [`memory`]: orders to the `memory` program, and its answers: JSON lines on its standard input and output.
//! - [`pattern`]: page contents that can be generated again from a few numbers.

#![forbid(unsafe_code)]
// Except in tests, anything that a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub mod memory;
pub mod pattern;
pub mod protocol;
