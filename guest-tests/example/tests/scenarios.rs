//! Each scenario of this crate as a test.

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_lab::play::as_tests::main(&cxl_cram_example::CATALOG)
}
