//! `cxl-cram-device`: see [`cxl_cram_device::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cxl_cram_device::cli::main(std::env::args_os())
}
