//! Cgroups (v2): memory limits, reclaim, and programs confined to a node.

use std::time::Duration;

use anyhow::{Context, Result};
use cxl_cram_wire::protocol::Program;

use super::Lab;
use crate::guest::memory::Memory;
use crate::guest::program::Spawned;

/// Time limit for a reclaim, which may have to write everything it reclaims.
const RECLAIM: Duration = Duration::from_secs(120);

/// Where the agent mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// A memory cgroup of the guest.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
}

impl Lab {
    /// Creates a memory cgroup.
    pub fn cgroup(&self, name: &str) -> Result<Cgroup> {
        let path = format!("{ROOT}/{name}");
        self.sh(&format!("echo +memory > {ROOT}/cgroup.subtree_control && mkdir {path}"))?;
        Ok(Cgroup { path })
    }

    /// Moves the agent, and with it every program that it starts from now on, into a cpuset cgroup, as in a container. Private
    /// nodes are in no cpuset, and the page allocator takes other paths as soon as there is one. Does nothing if the kernel
    /// has no cpusets.
    pub(crate) fn contain(&self) -> Result<()> {
        let line = format!(
            "cd {ROOT} && if grep -q cpuset cgroup.controllers; then \
             echo +cpuset > cgroup.subtree_control && mkdir -p container && echo $PPID > container/cgroup.procs; fi"
        );
        self.sh(&line).map(drop)
    }

    /// Starts a memory program inside a cgroup, which is charged for everything the program maps.
    pub fn memory_in(&self, cgroup: &Cgroup) -> Result<Memory> {
        let memory = self.guest.memory()?;
        self.write(cgroup, "cgroup.procs", &memory.program().pid().to_string())?;
        Ok(memory)
    }

    /// Starts a program whose memory, page tables included, is confined to a node, and waits until it is.
    pub fn program_confined_to(&self, node: u32) -> Result<Spawned> {
        let line = format!(
            "cd {ROOT} && echo +cpuset > cgroup.subtree_control && mkdir confined && cd confined && \
             echo {node} > cpuset.mems && echo $$ > cgroup.procs && exec cxl-cram-guest memory"
        );
        let program = self.guest.spawn(Program::new(["sh", "-c", &line]))?;
        let confined = format!("grep -q . {ROOT}/confined/cgroup.procs");
        self.wait("the program to be confined", |lab| lab.holds(&confined))?;
        Ok(program)
    }

    /// Writes a file of a cgroup, such as `memory.high`.
    pub fn write(&self, cgroup: &Cgroup, file: &str, value: &str) -> Result<()> {
        let path = format!("{}/{file}", cgroup.path);
        self.sh(&format!("echo {value} > {path}")).map(drop)
    }

    /// Reclaims up to this many bytes of a cgroup; there may be less to reclaim.
    pub fn reclaim(&self, cgroup: &Cgroup, bytes: u64) -> Result<()> {
        // The write fails with EAGAIN if less could be reclaimed.
        let line = format!("echo {bytes} > {}/memory.reclaim || true", cgroup.path);
        self.guest.output(&["sh", "-c", &line], RECLAIM).map(drop).with_context(|| format!("in the guest: {line}"))
    }

    /// The number in a file of a cgroup, such as `memory.swap.current`.
    pub fn figure_of(&self, cgroup: &Cgroup, file: &str) -> Result<u64> {
        let path = format!("{}/{file}", cgroup.path);
        self.guest.read_text(&path)?.parse().with_context(|| format!("{path} is no number"))
    }

    /// Bytes of a cgroup on a node, from `memory.numa_stat`.
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
