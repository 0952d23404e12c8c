//! What a scenario needs of the guest's kernel, and how it is found out: in the guest, never from a version number.
//!
//! A developer's kernel may lack what a story is about. Such a story is skipped, and the reason is the need that is not
//! met.

use std::fmt;

use anyhow::Result;
use cxl_cram_guest::agent::ON_DEMAND_DIR;

use super::{
    Lab,
    lab::{cram, private_node},
};

/// Something a kernel, or the guest, has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An option that is built in or a module, without `CONFIG_`: asked of `/proc/config.gz`, and held to be there when
    /// the kernel does not offer that file.
    Config(&'static str),
    /// A file of sysfs, procfs, debugfs or tracefs.
    Path(&'static str),
    /// A symbol of the kernel: asked of `/proc/kallsyms`.
    Symbol(&'static str),
    /// A program on the guest's path.
    Program(&'static str),
    /// Private memory nodes, of a tree that an adapter knows.
    PrivateNodes,
    /// CRAM and its driver for the device, of a tree that an adapter knows.
    Cram,
    /// A module that is loaded when a scenario asks for it.
    Module(&'static str),
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
            Self::PrivateNodes => f.write_str("private memory nodes and who commands them (CONFIG_PRIVATE_NODE_TEST)"),
        }
    }
}

impl Need {
    /// A shell line that fails in a guest without it.
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
            Self::Module(name) => format!("test -e {ON_DEMAND_DIR}/{name}.ko"),
        }
    }
}

/// Those of the needs that the lab's guest does not meet.
pub(super) fn unmet(lab: &Lab, needs: &[Need]) -> Result<Vec<Need>> {
    let mut unmet = Vec::new();
    for &need in needs {
        if !lab.holds(&need.test())? {
            unmet.push(need);
        }
    }
    Ok(unmet)
}
