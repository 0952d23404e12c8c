//! Memory cgroups (v2): who is limited, and what is reclaimed.

use anyhow::{Context, Result};

use super::Lab;
use crate::guest::memory::Memory;

/// Where the agent mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// A memory cgroup of the guest.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
}

impl Lab {
    /// Makes a memory cgroup.
    pub fn cgroup(&self, name: &str) -> Result<Cgroup> {
        let path = format!("{ROOT}/{name}");
        self.sh(&format!("echo +memory > {ROOT}/cgroup.subtree_control && mkdir {path}"))?;
        Ok(Cgroup { path })
    }

    /// Starts a memory program inside a cgroup: all that it maps is charged there.
    pub fn memory_in(&self, cgroup: &Cgroup) -> Result<Memory> {
        let memory = self.guest.memory()?;
        self.write(cgroup, "cgroup.procs", &memory.program().pid().to_string())?;
        Ok(memory)
    }

    /// Writes a file of a cgroup, such as `memory.high`.
    pub fn write(&self, cgroup: &Cgroup, file: &str, value: &str) -> Result<()> {
        let path = format!("{}/{file}", cgroup.path);
        self.sh(&format!("echo {value} > {path}")).map(drop)
    }

    /// A counter of a cgroup's `memory.stat`.
    pub fn stat(&self, cgroup: &Cgroup, counter: &str) -> Result<u64> {
        let stat = self.guest.read_text(&format!("{}/memory.stat", cgroup.path))?;
        let line = stat.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("memory.stat has no {counter}"))?.parse()?)
    }
}
