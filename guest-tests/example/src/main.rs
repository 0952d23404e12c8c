//! The lab's command line, with the scenarios of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_lab::cli::main(&cxl_cram_example::CATALOG)
}
