//! The store through its public face: against a plain array, under threads, at its limits, and how well it packs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod data;
mod limits;
mod model;
mod packing;
mod recompress;
mod threads;
