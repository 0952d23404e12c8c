//! Private memory nodes: nodes whose memory belongs to one owner, and from which nothing else allocates.
//!
//! Each kernel tree with private nodes has its own names: how to create one, its capabilities, the file of sysfs that lists
//! them. Only an [`Adapter`] knows them; scenarios get the one for their kernel from [`Lab::private_nodes`].
//! docs/private-nodes.md explains how to add one.

mod test_owner;

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use cxl_cram_wire::memory::Range as Pages;
use rustix::io::Errno;

use super::{Lab, Region};
use crate::guest::client::GuestError;
use crate::guest::memory::Memory;

/// The known kernel trees.
const ADAPTERS: &[&dyn Adapter] = &[&test_owner::TestOwner];

/// What the owner of a private node allows the kernel to do with its pages. Each is off by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Swap them and write them back, by pressure and by madvise.
    Reclaim,
    /// Compact the node.
    Compaction,
    /// Move them for a user: move_pages, migrate_pages, mbind.
    Migration,
    /// Allocate there for a policy: mbind, set_mempolicy.
    Mempolicy,
    /// Demote to the node.
    Demotion,
    /// Never map them writable.
    ProtectWrite,
    /// Promote them by NUMA balancing.
    NumaBalancing,
    /// Pin them long-term.
    LongtermPin,
    /// Kill for memory when the node is full.
    Oom,
    /// Move them away when the memory is taken offline.
    Hotunplug,
    /// Handle poison in them.
    MemoryFailure,
}

/// An owner's claim to a node.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The node.
    pub node: u32,
    /// The owner, 0 to 3.
    pub owner: u32,
    /// What the kernel may do there.
    pub capabilities: &'a [Capability],
}

/// A notification to the owner, which counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A folio was freed.
    Freed,
    /// The owner kept a freed folio, until [`Adapter::release`].
    Kept,
    /// A folio was split.
    Split,
    /// A folio's contents moved to the node.
    MovedIn,
    /// A folio's contents moved away.
    MovedOut,
    /// A store to a page of a write-protected node.
    WriteFault,
    /// Poison in a page.
    MemoryFailure,
}

/// How the owner responds to a store to a protected page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Leaves it to the kernel, which copies the page to ordinary memory.
    Copy,
    /// Migrates the folio to ordinary memory.
    Promote,
    /// Refuses: SIGBUS.
    Refuse,
}

/// A kernel tree's way to do what scenarios do with private nodes. Physical memory is a range of guest physical addresses, in
/// whole memory blocks. Errors are the kernel's; [`errno`] names them.
pub trait Adapter: Sync {
    /// A shell line that fails if the guest's kernel is not of this tree.
    fn probe(&self) -> &'static str;

    /// The file of sysfs that lists the nodes with private memory.
    fn list(&self) -> &'static str;

    /// Makes an owner claim a node, unless it has, and adds memory to it, which comes online.
    ///
    /// # Errors
    /// The kernel refuses the claim or the memory.
    fn add(&self, lab: &Lab, claim: &Claim<'_>, memory: &Range<u64>) -> Result<(), GuestError>;

    /// Takes memory of a claimed node offline, and removes it.
    ///
    /// # Errors
    /// The memory cannot be taken offline.
    fn remove(&self, lab: &Lab, node: u32, memory: &Range<u64>) -> Result<(), GuestError>;

    /// Gives a node up.
    ///
    /// # Errors
    /// The node is not claimed, or still has memory.
    fn unregister(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;

    /// Makes the owner allocate folios of an order from its node.
    ///
    /// # Errors
    /// The node has too little memory, or the request is for unmovable memory. Folios allocated so far stay allocated.
    fn allocate(&self, lab: &Lab, node: u32, order: u32, count: u64, movable: bool) -> Result<(), GuestError>;

    /// Makes the owner free everything that it allocated.
    ///
    /// # Errors
    /// The node is not claimed.
    fn free(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;

    /// Makes the owner put pages of a program on its node, which it may do whatever the capabilities.
    ///
    /// # Errors
    /// A page cannot be moved to the node.
    fn place(&self, memory: &mut Memory, node: u32, pages: Pages) -> Result<(), GuestError>;

    /// A file whose shared mapping is memory of the node, which the owner allocates page by page.
    fn pages(&self, node: u32) -> String;

    /// How often the owner was notified.
    ///
    /// # Errors
    /// The node is not claimed.
    fn notice_count(&self, lab: &Lab, node: u32, notice: Notice) -> Result<u64>;

    /// Sets how the owner responds to a store to a protected page.
    ///
    /// # Errors
    /// The node is not claimed.
    fn on_write_fault(&self, lab: &Lab, node: u32, answer: WriteFault) -> Result<(), GuestError>;

    /// Sets whether the owner keeps freed folios.
    ///
    /// # Errors
    /// The node is not claimed.
    fn keep_freed(&self, lab: &Lab, node: u32, keep: bool) -> Result<(), GuestError>;

    /// Makes the owner give back the folios that it kept.
    ///
    /// # Errors
    /// The node is not claimed.
    fn release(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;
}

/// A shell line that fails if no adapter knows the private nodes of the guest's kernel.
pub(crate) fn probe() -> String {
    ADAPTERS.iter().map(|adapter| adapter.probe()).collect::<Vec<_>>().join(" || ")
}

/// The result of a call, for a fact: `done`, or the name of the kernel's error.
///
/// # Errors
/// The call failed for a reason other than the kernel's, such as a guest that is gone.
pub fn errno<T>(outcome: Result<T, GuestError>) -> Result<String> {
    let error = match outcome {
        Ok(_) => return Ok("done".to_owned()),
        Err(error) => error,
    };
    let GuestError::Failed { failure, .. } = &error else { return Err(error.into()) };
    let Some(number) = failure.errno else { return Err(error.into()) };
    Ok(name(number))
}

/// An error number as errno(3) names it, if it is one that memory calls return.
fn name(number: i32) -> String {
    const NAMES: [(Errno, &str); 16] = [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::INTR, "EINTR"),
        (Errno::IO, "EIO"),
        (Errno::NXIO, "ENXIO"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::FAULT, "EFAULT"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NODEV, "ENODEV"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    ];
    let known = NAMES.iter().find(|(errno, _)| errno.raw_os_error() == number);
    known.map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}

impl Lab {
    /// The adapter for this kernel's private nodes. All programs run in a cpuset cgroup from now on.
    pub fn private_nodes(&self) -> Result<&'static dyn Adapter> {
        for adapter in ADAPTERS {
            if self.holds(adapter.probe())? {
                self.contain()?;
                return Ok(*adapter);
            }
        }
        anyhow::bail!("this kernel has no private nodes; add Need::PrivateNodes to the scenario's needs")
    }

    /// Takes a region's memory, which must be offline, from its driver, so that an owner can add it.
    pub fn take_range(&self, region: &Region) -> Result<Range<u64>> {
        let dax = &region.dax;
        self.sh(&format!("echo {dax} > /sys/bus/dax/devices/{dax}/driver/unbind"))?;
        // kmem keeps memory that it cannot take offline, and reports that nowhere else.
        let block = "0x$(cat /sys/devices/system/memory/block_size_bytes)";
        let first = format!("/sys/devices/system/memory/memory$(({} / {block}))", region.base);
        ensure!(
            self.holds(&format!("test ! -e {first}"))?,
            "{dax} still has its memory blocks; take them offline first"
        );
        let end = region.base.checked_add(region.size).context("the region ends beyond the address space")?;
        Ok(region.base..end)
    }

    /// A figure of a node's `meminfo`, in bytes; 0 if the node is not online.
    pub fn node_bytes(&self, node: u32, figure: &str) -> Result<u64> {
        let path = format!("/sys/devices/system/node/node{node}/meminfo");
        if !self.holds(&format!("test -e {path}"))? {
            return Ok(0);
        }
        let text = self.guest.read_text(&path)?;
        let named = format!(" {figure}:");
        let value = text.lines().find_map(|line| Some(line.split_once(&named)?.1.trim().strip_suffix("kB")?.trim()));
        let value: u64 = value.with_context(|| format!("{path} has no {figure}"))?.parse()?;
        Ok(value << 10)
    }

    /// How many allocations of any order a node has served. Unlike its free pages, the number is exact.
    pub fn allocations_from(&self, node: u32) -> Result<u64> {
        let text = self.guest.read_text(&format!("/sys/devices/system/node/node{node}/numastat"))?;
        let served = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| ["numa_hit", "numa_miss"].contains(name));
        served.map(|(_, count)| Ok(count.trim().parse::<u64>()?)).sum()
    }
}
