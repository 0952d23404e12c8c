//! Memory cgroups (v2): who is limited, and what is reclaimed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Lab;
use crate::guest::memory::Memory;

/// How long a reclaim may take: all that is reclaimed may have to be written.
const RECLAIM: Duration = Duration::from_secs(120);

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

    /// Has so many bytes of a cgroup reclaimed, as far as that goes: it may be that there is no more to reclaim.
    pub fn reclaim(&self, cgroup: &Cgroup, bytes: u64) -> Result<()> {
        // What cannot be reclaimed of it is said with EAGAIN.
        let line = format!("echo {bytes} > {}/memory.reclaim || true", cgroup.path);
        self.guest.output(&["sh", "-c", &line], RECLAIM).map(drop).with_context(|| format!("in the guest: {line}"))
    }

    /// A file of a cgroup that is one number, such as `memory.swap.current`.
    pub fn figure_of(&self, cgroup: &Cgroup, file: &str) -> Result<u64> {
        let path = format!("{}/{file}", cgroup.path);
        self.guest.read_text(&path)?.parse().with_context(|| format!("{path} is no number"))
    }

    /// Bytes of a cgroup on a node, by `memory.numa_stat`.
    pub fn numa_stat(&self, cgroup: &Cgroup, counter: &str, node: u32) -> Result<u64> {
        let stat = self.guest.read_text(&format!("{}/memory.numa_stat", cgroup.path))?;
        let line = stat.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '));
        let field = format!("N{node}=");
        let value = line.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix(&field)));
        Ok(value.with_context(|| format!("memory.numa_stat has no {counter} on node {node}"))?.parse()?)
    }

    /// A counter of a cgroup's `memory.stat`.
    pub fn stat(&self, cgroup: &Cgroup, counter: &str) -> Result<u64> {
        let stat = self.guest.read_text(&format!("{}/memory.stat", cgroup.path))?;
        let line = stat.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("memory.stat has no {counter}"))?.parse()?)
    }
}
