//! What a scenario needs from the guest's kernel, checked in the guest and never by version number.
//!
//! A developer's kernel may lack a feature. Scenarios that need it are skipped, and the unmet need is the reason.

use std::fmt;

use anyhow::Result;
use cxl_cram_wire::protocol::ON_DEMAND_DIR;

use super::{Lab, cram, private_node};
use crate::provision::SELFTESTS_IN_GUEST;

/// Something that the guest or its kernel must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An option, without `CONFIG_`, that is built in or a module by the kernel's configuration, or by `/proc/config.gz` if the
    /// harness does not know it. Assumed present if the kernel does not have that file either.
    Config(&'static str),
    /// A file of sysfs, procfs, debugfs or tracefs.
    Path(&'static str),
    /// A symbol of the kernel, by `/proc/kallsyms`.
    Symbol(&'static str),
    /// A program on the guest's path.
    Program(&'static str),
    /// Private memory nodes of a tree that an adapter knows.
    PrivateNodes,
    /// CRAM of a tree that an adapter knows, and its driver for the device.
    Cram,
    /// A module that a scenario can load on demand.
    Module(&'static str),
    /// The programs of a folder of the kernel tree's `tools/testing/selftests`. Only for a machine with
    /// [`MachineShape::selftests`](crate::rig::shape::MachineShape::selftests).
    Selftests(&'static str),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(option) => write!(f, "CONFIG_{option}"),
            Self::Path(path) => write!(f, "{path}"),
            Self::Symbol(symbol) => write!(f, "the kernel symbol {symbol}"),
            Self::Program(program) => write!(f, "the program {program}"),
            Self::Cram => f.write_str("CRAM and its driver for the device (CONFIG_CRAM, CONFIG_CXL_CRAM=m)"),
            Self::Module(name) => write!(f, "the module {name}"),
            Self::Selftests(folder) => write!(f, "tools/testing/selftests/{folder} in the kernel's tree"),
            Self::PrivateNodes => f.write_str("private memory nodes and their test owner (CONFIG_TEST_PRIVATE_NODE)"),
        }
    }
}

impl Need {
    /// A shell line that fails if the guest does not have it.
    fn test(self) -> String {
        match self {
            Self::Config(option) => {
                format!("test ! -e /proc/config.gz || zcat /proc/config.gz | grep -q '^CONFIG_{option}=[ym]'")
            }
            Self::Path(path) => format!("test -e {path}"),
            Self::Symbol(symbol) => format!("grep -q ' {symbol}$' /proc/kallsyms"),
            Self::Program(program) => format!("which {program} >/dev/null"),
            Self::PrivateNodes => private_node::probe(),
            Self::Cram => cram::probe(),
            Self::Selftests(folder) => format!("test -d {SELFTESTS_IN_GUEST}/{folder}"),
            Self::Module(name) => format!("test -e {ON_DEMAND_DIR}/{name}.ko"),
        }
    }
}

/// Whether an option is built in or a module.
fn configured(config: &str, option: &str) -> bool {
    let value = |line: &str| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('=').map(str::to_owned);
    config.lines().filter_map(value).any(|value| value == "y" || value == "m")
}

/// The needs that the lab's guest does not meet.
pub(super) fn unmet(lab: &Lab, needs: &[Need]) -> Result<Vec<Need>> {
    let mut unmet = Vec::new();
    for &need in needs {
        let met = match (need, lab.kernel_config()) {
            (Need::Config(option), Some(config)) => configured(config, option),
            _ => lab.holds(&need.test())?,
        };
        if !met {
            unmet.push(need);
        }
    }
    Ok(unmet)
}
