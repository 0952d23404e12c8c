//! What is changed of every machine and every device.

use clap::{Args, ValueEnum};
use cxl_cram_device::size::parse_bytes;

use crate::{machine::config, scenario::Overrides};

/// What is changed of every machine and every device.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Change the machine")]
pub(super) struct MachineArgs {
    /// Added to the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Vec<String>,

    /// How the guest's instructions are executed [default: kvm where the processor has vmx or svm, else tcg]
    #[arg(long, value_enum)]
    accel: Option<Accel>,

    /// The guest's ordinary memory [default: the scenario's, usually 1G]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,

    /// The guest's processors [default: the scenario's, usually 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: Option<u32>,

    /// Added to each device's command line: options of `cxl-cram-device serve`, which replace the scenario's
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    device_args: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accel {
    Kvm,
    Tcg,
}

impl MachineArgs {
    /// As scenarios take them.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            memory: self.memory,
            processors: self.smp,
            accel: self.accel.map(|accel| match accel {
                Accel::Kvm => config::Accel::Kvm,
                Accel::Tcg => config::Accel::Tcg,
            }),
            append: self.append.join(" "),
            device_args: self.device_args.iter().flat_map(|words| words.split_whitespace()).map(Into::into).collect(),
        }
    }

    /// How the guest's instructions are executed, in words.
    pub(super) fn accel(&self) -> &'static str {
        match (self.overrides().accel, config::Accel::choose()) {
            (Some(config::Accel::Kvm), _) | (None, config::Accel::Kvm) => "with KVM",
            (Some(config::Accel::Tcg), _) => "with TCG",
            (None, config::Accel::Tcg) => "with TCG (the processor offers no vmx or svm)",
        }
    }
}
