//! The command line of `cxl-cram-device`.

use std::{ffi::OsString, process::ExitCode};

/// Runs the program with these arguments (the first is the program's name) and returns its exit code.
pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
