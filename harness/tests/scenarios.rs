//! Every scenario of the catalog as a test of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_lab::play::as_tests::main(&cxl_cram_scenarios::CATALOG)
}
