//! The guest's programs.
//!
//! - [`agent`]: the guest's init and the agent behind its virtio-serial port.
//! - [`memory`]: a program that holds memory on a chosen node and fills and verifies it on command.
//! - [`hot_cost`], [`cxl_raw`], [`node`]: the other test programs.
//!
//! `cxl_cram_wire` has the messages that they exchange with the harness.

// Except in tests, anything that a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub mod agent;
pub mod cxl_raw;
pub mod hot_cost;
pub mod memory;
pub mod node;
