//! `acpi`: the ACPI override for a QEMU that the harness did not start.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use cxl_cram_kit::size::{format_bytes, parse_bytes};

use super::out::outln;
use crate::guest::initramfs::Initramfs;
use crate::machine::config::WINDOW_UNIT;
use crate::machine::decoders::Decoders;
use crate::machine::learn;
use crate::process::sockets;

/// Time limit for the firmware of the user's QEMU.
const FIRMWARE_LIMIT: Duration = Duration::from_secs(60);
/// The largest window: the most that `serve` accepts.
const MOST: u64 = 8 << 40;

/// Make the ACPI override for your own QEMU.
///
/// Starts your command line without a guest, finds where the firmware put the device's BAR2, and writes an early cpio
/// that declares a CXL window there. Put it before your initramfs: cat OUT initramfs > initrd.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example, with the device already served on /tmp/cram.sock:
  cxl-cram-harness acpi --output acpi.cpio -- qemu-system-x86_64 -M q35,cxl=on,memory-backend=mem ...")]
pub(super) struct AcpiArgs {
    /// Where to write the early cpio
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Size of each window, once per device in bus order [default: each device's capacity]
    #[arg(long, value_name = "SIZE", value_parser = parse_capacity)]
    capacity: Vec<u64>,

    /// What the firmware does with the HDM decoders before Linux starts
    #[arg(long, value_enum, value_name = "STATE", default_value = "open")]
    decoders: Decoders,

    /// Your QEMU command line
    #[arg(last = true, required = true)]
    qemu: Vec<OsString>,
}

/// Makes the override.
pub(super) fn acpi(args: &AcpiArgs) -> Result<ExitCode> {
    let directory = sockets::folder()?;
    let [program, arguments @ ..] = args.qemu.as_slice() else { bail!("give the QEMU command line after --") };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let (learned, own) = learn::learn_own(command, args.decoders, directory.path(), directory.path(), FIRMWARE_LIMIT)?;
    let capacities = learn::own_capacities(&own, &args.capacity)?;
    let initramfs = Initramfs { tables: learned.own_overrides(&capacities, args.decoders)?, ..Initramfs::default() };
    std::fs::write(&args.output, initramfs.early_archive()?)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    for (bar, capacity) in learned.bars.iter().zip(capacities) {
        outln!("CXL window of {} at {:#x}, over BAR2", format_bytes(capacity), bar.address);
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_capacity(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let fits = (WINDOW_UNIT..=MOST).contains(&bytes) && bytes.is_multiple_of(WINDOW_UNIT);
    if fits { Ok(bytes) } else { Err("it must be 256 MiB to 8 TiB, in steps of 256 MiB".into()) }
}
