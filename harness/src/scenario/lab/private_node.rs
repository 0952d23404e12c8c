//! Private memory nodes: nodes whose memory is one owner's, and that nobody else allocates from.
//!
//! A kernel tree with private nodes has its own names for them: how one is made, what its capabilities are called, which
//! file of sysfs lists them. Those are said in an [`Adapter`] and nowhere else; stories ask [`Lab::private_nodes`] for the
//! one that fits the kernel. How to add one: docs/private-nodes.md.

mod test_owner;

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use cxl_cram_guest::memory::protocol::Range as Pages;
use nix::errno::Errno;

use super::{Lab, Region};
use crate::guest::client::GuestError;
use crate::guest::memory::Memory;

/// The kernel trees that are known.
const ADAPTERS: &[&dyn Adapter] = &[&test_owner::TestOwner];

/// What the owner of a private node lets the kernel do with its pages. Each is off unless it is named.
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

/// Whose node it is to be, and what the kernel may do there.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The node.
    pub node: u32,
    /// Which owner: 0 to 3.
    pub owner: u32,
    /// What the kernel may do.
    pub capabilities: &'a [Capability],
}

/// What owners are told, and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A folio was freed.
    Freed,
    /// A freed folio was kept by the owner: it is so until [`Adapter::release`].
    Kept,
    /// A folio was split.
    Split,
    /// A folio's contents moved to the node.
    MovedIn,
    /// A folio's contents moved away.
    MovedOut,
    /// A store to a page of a node that is protected from them.
    WriteFault,
    /// Poison.
    MemoryFailure,
}

/// What the owner does with a store to a protected page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Leaves it to the kernel, which copies the page to ordinary memory.
    Copy,
    /// Migrates the folio to ordinary memory.
    Promote,
    /// Refuses: SIGBUS.
    Refuse,
}

/// A kernel tree's names for what stories do with private nodes. Physical memory is given by guest physical addresses, in
/// whole memory blocks. An error of a call is the kernel's: [`errno`] names it.
pub trait Adapter: Sync {
    /// A shell line that fails in a guest whose kernel is not of this tree.
    fn probe(&self) -> &'static str;

    /// The file of sysfs that lists the nodes with private memory.
    fn list(&self) -> &'static str;

    /// Has an owner claim a node, if it has not yet, and add memory to it. The memory is online then.
    ///
    /// # Errors
    /// The kernel refuses.
    fn add(&self, lab: &Lab, claim: &Claim<'_>, memory: &Range<u64>) -> Result<(), GuestError>;

    /// Takes memory of a claimed node offline and away.
    ///
    /// # Errors
    /// The kernel refuses.
    fn remove(&self, lab: &Lab, node: u32, memory: &Range<u64>) -> Result<(), GuestError>;

    /// Gives a node up.
    ///
    /// # Errors
    /// The kernel refuses.
    fn unregister(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;

    /// Has the owner allocate folios of an order from its node.
    ///
    /// # Errors
    /// There is not that much, or the request is an unmovable one. What was allocated stays so.
    fn allocate(&self, lab: &Lab, node: u32, order: u32, count: u64, movable: bool) -> Result<(), GuestError>;

    /// Has the owner free all that it allocated.
    ///
    /// # Errors
    /// The node is not claimed.
    fn free(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;

    /// Has the owner put pages of a program on its node: its right, whatever the capabilities.
    ///
    /// # Errors
    /// A page cannot be moved there.
    fn place(&self, memory: &mut Memory, node: u32, pages: Pages) -> Result<(), GuestError>;

    /// A file whose shared mapping is memory of the node that the owner allocates page by page.
    fn pages(&self, node: u32) -> String;

    /// How often the owner was told something.
    ///
    /// # Errors
    /// The node is not claimed.
    fn told(&self, lab: &Lab, node: u32, notice: Notice) -> Result<u64>;

    /// Chooses what the owner does with a store to a protected page.
    ///
    /// # Errors
    /// The node is not claimed.
    fn on_write_fault(&self, lab: &Lab, node: u32, answer: WriteFault) -> Result<(), GuestError>;

    /// Has the owner keep freed folios from now on, or no longer.
    ///
    /// # Errors
    /// The node is not claimed.
    fn keep_freed(&self, lab: &Lab, node: u32, keep: bool) -> Result<(), GuestError>;

    /// Has the owner give back the folios that it kept.
    ///
    /// # Errors
    /// The node is not claimed.
    fn release(&self, lab: &Lab, node: u32) -> Result<(), GuestError>;
}

/// A shell line that fails in a guest whose kernel has no private nodes that an adapter knows.
pub(in crate::scenario) fn probe() -> String {
    ADAPTERS.iter().map(|adapter| adapter.probe()).collect::<Vec<_>>().join(" || ")
}

/// What came of a call, for a fact: `done`, or the name of the kernel's error.
///
/// # Errors
/// It failed otherwise: the guest is gone.
pub fn errno<T>(outcome: Result<T, GuestError>) -> Result<String> {
    let error = match outcome {
        Ok(_) => return Ok("done".to_owned()),
        Err(error) => error,
    };
    let GuestError::Failed { failure, .. } = &error else { return Err(error.into()) };
    let Some(number) = failure.errno else { return Err(error.into()) };
    Ok(match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("errno {number}"),
        name => format!("{name:?}"),
    })
}

impl Lab {
    /// What this kernel calls private nodes.
    pub fn private_nodes(&self) -> Result<&'static dyn Adapter> {
        for adapter in ADAPTERS {
            if self.holds(adapter.probe())? {
                return Ok(*adapter);
            }
        }
        anyhow::bail!("this kernel has no private nodes: say Need::PrivateNodes in the scenario's needs")
    }

    /// Takes a region's memory from its driver, so that an owner can add it. It must be offline.
    pub fn take_range(&self, region: &Region) -> Result<Range<u64>> {
        let dax = &region.dax;
        self.sh(&format!("echo {dax} > /sys/bus/dax/devices/{dax}/driver/unbind"))?;
        // kmem keeps memory that it cannot take offline, and says so nowhere else.
        let block = "0x$(cat /sys/devices/system/memory/block_size_bytes)";
        let first = format!("/sys/devices/system/memory/memory$(({} / {block}))", region.base);
        ensure!(self.holds(&format!("test ! -e {first}"))?, "{dax} still has its blocks of memory: take them offline");
        let end = region.base.checked_add(region.size).context("the region ends beyond the address space")?;
        Ok(region.base..end)
    }

    /// A figure of a node's `meminfo`, in bytes: 0 if the node is not online.
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

    /// How many allocations a node has served, of any order: exact, unlike its free pages.
    pub fn allocations_from(&self, node: u32) -> Result<u64> {
        let text = self.guest.read_text(&format!("/sys/devices/system/node/node{node}/numastat"))?;
        let served = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| ["numa_hit", "numa_miss"].contains(name));
        served.map(|(_, count)| Ok(count.trim().parse::<u64>()?)).sum()
    }
}
