//! The guest side of cxl-cram: what the agent and the test programs say and do.
//!
//! - [`protocol`]: the lines the harness and the agent exchange. The harness uses these very types.
//! - [`agent`]: the guest's init and the agent behind its virtio-serial port.
//! - [`memory`]: a program that holds memory on a chosen node and fills and verifies it on command.
//! - [`pattern`]: page contents that can be made again from a few numbers.
//! - [`hot_cost`], [`cxl_raw`], [`node`]: the other test programs.
//!
//! The library is also built into the harness, so everything that touches the machine is behind a function call.

// In the program, not in its tests: what a client, a guest, a file or a flag can cause is an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub mod agent;
pub mod cxl_raw;
pub mod hot_cost;
pub mod memory;
pub mod node;
pub mod pattern;
pub mod protocol;
