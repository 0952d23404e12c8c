//! Runs scenarios in parallel, and compares their facts with the snapshots.
//!
//! - [`schedule`]: runs all, as many at once as the machine has room for. [`runner`]: runs one.
//! - [`selftest`]: plays the selftests of a kernel tree.
//! - [`preflight`]: finds what cannot work here before anything boots.
//! - [`as_tests`]: runs each as a test of `cargo test`.
//! - [`snapshot`]: compares facts with the accepted ones; [`difference`]: shows what differs.
//! - [`artifacts`]: the folders that a run leaves. [`last_outcomes`]: what failed the last time.

pub mod artifacts;
pub mod as_tests;
mod difference;
pub mod last_outcomes;
pub mod preflight;
pub mod runner;
pub mod schedule;
pub(crate) mod selftest;
pub mod snapshot;
