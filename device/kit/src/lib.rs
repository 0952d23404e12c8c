//! The user interface code that this workspace's programs share.
//!
//! - [`size`]: parses and formats byte counts.
//! - [`progress`]: shows a bar on a terminal, occasional lines elsewhere.
//! - [`html`]: self-contained pages and charts.
//! - [`generate`]: completions and manual pages.

#![forbid(unsafe_code)]
// Not in tests. Whatever a client, a guest, a file or a flag can cause must be an error, not a panic.
#![warn(clippy::unwrap_used, clippy::todo)]

pub mod generate;
pub mod html;
pub mod progress;
pub mod size;
