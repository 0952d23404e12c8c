//! `cxl-cram-harness`: see [`cxl_cram_harness::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_harness::scenario::entry().unwrap_or_else(cxl_cram_harness::cli::main)
}
