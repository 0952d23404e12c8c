//! Options that change every machine and every device.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use console::style;
use cxl_cram_kit::size::parse_bytes;

use crate::machine::{config, kvm};
use crate::provision::Provisioned;
use crate::rig::stage::Overrides;

/// Options that change every machine and every device.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Change the machine")]
pub(super) struct MachineArgs {
    /// Add to the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,

    /// How to execute the guest's instructions [default: kvm if usable, else tcg]
    #[arg(long, value_enum)]
    accel: Option<Accel>,

    /// Firmware instead of QEMU's own SeaBIOS: `ovmf` for Debian's UEFI firmware, fetched, or a file for QEMU's -bios
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,

    /// Size of the guest's ordinary memory [default: the scenario's, usually 1G]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,

    /// Number of the guest's processors [default: the scenario's, usually 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: Option<u32>,

    /// Add to each device's command line: options of `cxl-cram-device serve`, which replace the scenario's
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    device_args: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accel {
    Kvm,
    Tcg,
}

/// Prints what the harness changes because of the kernel.
pub(super) fn print_remedies(provisioned: &Provisioned) {
    for notice in provisioned.kernel.remedies.notices() {
        eprintln!("{} {notice}", style("note:").cyan().for_stderr());
    }
}

impl MachineArgs {
    /// The options in the form that scenarios take.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            memory: self.memory,
            processors: self.smp,
            accel: self.accel.map(|accel| match accel {
                Accel::Kvm => config::Accel::Kvm,
                Accel::Tcg => config::Accel::Tcg,
            }),
            firmware: self.firmware.clone().filter(|_| !self.wants_ovmf()),
            append: self.append.join(" "),
            device_args: self.device_args.iter().flat_map(|words| words.split_whitespace()).map(Into::into).collect(),
        }
    }

    /// Whether OVMF must be provided.
    pub(super) fn wants_ovmf(&self) -> bool {
        self.firmware.as_deref() == Some(Path::new("ovmf"))
    }

    /// Whether KVM executes the guest's instructions.
    pub(super) fn has_kvm(&self) -> bool {
        !matches!(self.accel, Some(Accel::Tcg)) && kvm::obstacle().is_none()
    }

    /// How the guest's instructions are executed, as text.
    ///
    /// # Errors
    /// The user asked for KVM, and it cannot be used.
    pub(super) fn accel(&self) -> Result<String> {
        Ok(match (self.accel, kvm::obstacle()) {
            (Some(Accel::Kvm), Some(obstacle)) => {
                bail!("--accel kvm cannot be used: {obstacle}; leave out --accel to run under TCG")
            }
            (Some(Accel::Kvm) | None, None) => "with KVM".to_owned(),
            (Some(Accel::Tcg), _) => "with TCG".to_owned(),
            (None, Some(obstacle)) => format!("with TCG ({obstacle})"),
        })
    }
}
