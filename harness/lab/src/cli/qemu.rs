//! `qemu`: starts the QEMU that `run` uses, with the user's arguments.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::provision;
use crate::provision::{FetchArgs, Progress, QemuSource};

/// Start the QEMU that `run` uses, with your own arguments.
///
/// QEMU takes this program's place, with its terminal and exit code. Use this command for a fetched QEMU: it runs from the
/// cache on its own libraries and firmware, so its program file does not start alone.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness qemu -- --version
  cxl-cram-harness qemu -- -M q35,cxl=on -device help")]
pub(super) struct QemuArgs {
    /// QEMU's arguments
    #[arg(last = true)]
    arguments: Vec<OsString>,

    #[command(flatten)]
    qemu: QemuSource,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// Becomes QEMU; returns only if QEMU does not start.
pub(super) fn qemu(args: &QemuArgs) -> Result<ExitCode> {
    let qemu = provision::qemu(&args.qemu.add_to(args.fetch.options()), &Progress::stderr())?;
    let mut command = qemu.command();
    command.args(&args.arguments);
    Err(command.exec()).with_context(|| format!("cannot start {}", qemu.program().display()))
}
