//! `cxl-cram-harness`: the lab's command line, with the scenarios of this workspace.

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_lab::cli::main(&cxl_cram_scenarios::CATALOG)
}
