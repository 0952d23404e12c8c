//! The vfio-user server through its socket, one module a message or theme. `peer` is the other end.
#![allow(clippy::unwrap_used, reason = "tests, and the helpers only tests call")]

mod access;
mod dma;
mod framing;
mod fuzz;
mod independent_client;
mod info;
mod irqs;
mod patience;
mod peer;
mod qemu;
mod socket;
mod version;
