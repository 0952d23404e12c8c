//! The mailbox, the event logs and the vendor interface, as a driver meets them in BAR0.

#![allow(clippy::unwrap_used, reason = "tests")]

mod delays;
mod driver;
mod events;
mod failures;
mod firmware;
mod health_alerts;
mod hostile;
mod logs;
mod media_operations;
mod payload;
mod poison;
mod probe;
mod sanitize;
mod vendor;
mod watermarks;
