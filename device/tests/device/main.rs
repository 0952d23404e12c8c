//! The device through its public faces, one module a subject. One executable, because a link is most of what a small
//! change costs.
//!
//! Under `cargo test` these tests share a process, so none may change or count what belongs to all of it: environment,
//! signal handlers, limits, descriptors. `window` and `vfio_user_descriptors` do, and are executables of their own.

#![allow(clippy::unwrap_used, reason = "tests, and the helpers only tests call")]

mod bench;
mod bench_html;
mod control;
mod cxl_component;
mod cxl_config;
mod cxl_config_doe;
mod cxl_config_function;
mod cxl_mailbox;
mod generate;
mod hdm_media;
mod hdm_power;
mod hdm_recompress;
mod hdm_trap;
mod serve;
mod store;
mod vfio_user;
