//! `acpi`: the ACPI override for a QEMU that the harness did not start.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use cxl_cram_device::size::{format_bytes, parse_bytes};

use crate::{guest::initramfs::Initramfs, machine::learn};

/// How long the firmware of a QEMU of the user's own may take.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(60);

/// Make the ACPI override for a QEMU of your own.
///
/// Starts your command line without a guest, asks it where the firmware put the device's BAR2, and writes an early
/// cpio that declares a CXL window there. Put it before your initramfs: cat OUT initramfs > initrd.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example, with the device already served on /tmp/cram.sock:
  cxl-cram-harness acpi --output acpi.cpio -- qemu-system-x86_64 -M q35,cxl=on,memory-backend=mem ...")]
pub(super) struct AcpiArgs {
    /// Where to write the early cpio
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The device's capacity [default: half of BAR2, right for a capacity that is a power of two]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    capacity: Option<u64>,

    /// The QEMU command line whose machine it is for
    #[arg(last = true, required = true)]
    qemu: Vec<OsString>,
}

/// Does it.
pub(super) fn acpi(args: &AcpiArgs) -> Result<ExitCode> {
    let directory = tempfile::tempdir().context("cannot make a temporary folder")?;
    let [program, arguments @ ..] = args.qemu.as_slice() else { bail!("give the QEMU command line after --") };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let learnt = learn::learn_own(command, directory.path(), directory.path(), FIRMWARE_LIMIT)?;
    let initramfs = Initramfs { tables: vec![learnt.own_override(args.capacity)?], ..Initramfs::default() };
    std::fs::write(&args.output, initramfs.early_archive()?)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    for bar in &learnt.bars {
        let capacity = args.capacity.unwrap_or(bar.size / 2);
        println!("CXL window of {} at {:#x}, over BAR2", format_bytes(capacity), bar.address);
    }
    Ok(ExitCode::SUCCESS)
}
