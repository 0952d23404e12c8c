//! The series of guest-tests/kernel/series/private-nodes: its test owner, which is commanded through debugfs
//! (Documentation/mm/private_nodes.rst of the patched kernel).

use std::ops::Range;

use anyhow::Result;
use cxl_cram_wire::memory::Range as Pages;
use cxl_cram_wire::protocol::Failure;

use super::{Adapter, Capability, Claim, Notice, WriteFault};
use crate::guest::client::GuestError;
use crate::guest::memory::Memory;
use crate::lab::Lab;

const ROOT: &str = "/sys/kernel/debug/private_node_test";

/// The names in the file `capabilities`.
const NAMES: &[(Capability, &str)] = &[
    (Capability::Reclaim, "reclaim"),
    (Capability::Compaction, "compaction"),
    (Capability::Migration, "migration"),
    (Capability::Mempolicy, "mempolicy"),
    (Capability::Demotion, "demotion"),
    (Capability::ProtectWrite, "protect_write"),
    (Capability::NumaBalancing, "numa_balancing"),
    (Capability::LongtermPin, "longterm_pin"),
    (Capability::Oom, "oom"),
    (Capability::Hotunplug, "hotunplug"),
    (Capability::MemoryFailure, "memory_failure"),
];

/// This project's series.
pub(super) struct TestOwner;

impl TestOwner {
    fn control(lab: &Lab, command: &str) -> Result<(), GuestError> {
        lab.guest.write_file(&format!("{ROOT}/control"), command)
    }

    fn file(node: u32, name: &str) -> String {
        format!("{ROOT}/node{node}/{name}")
    }

    /// The mask of capabilities, by the bits that the kernel lists.
    fn mask(lab: &Lab, capabilities: &[Capability]) -> Result<u64, GuestError> {
        let path = format!("{ROOT}/capabilities");
        let text = lab.guest.read_text(&path)?;
        let bit = |capability: &Capability| {
            let (_, name) = NAMES.iter().find(|(known, _)| known == capability)?;
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" 0x"))?;
            u64::from_str_radix(value, 16).ok()
        };
        capabilities.iter().try_fold(0, |mask, capability| match bit(capability) {
            Some(bit) => Ok(mask | bit),
            None => Err(GuestError::Failed {
                what: path.clone(),
                failure: Failure::new(format!("does not list {capability:?}")),
            }),
        })
    }
}

impl Adapter for TestOwner {
    fn probe(&self) -> &'static str {
        "test -e /sys/kernel/debug/private_node_test/control"
    }

    fn list(&self) -> &'static str {
        "/sys/devices/system/node/has_memory_private"
    }

    fn add(&self, lab: &Lab, claim: &Claim<'_>, memory: &Range<u64>) -> Result<(), GuestError> {
        let Claim { node, owner, capabilities } = claim;
        let (mask, bytes) = (Self::mask(lab, capabilities)?, memory.end.saturating_sub(memory.start));
        Self::control(lab, &format!("add {node} {owner} {mask:#x} {:#x} {bytes:#x}", memory.start))
    }

    fn remove(&self, lab: &Lab, node: u32, memory: &Range<u64>) -> Result<(), GuestError> {
        let bytes = memory.end.saturating_sub(memory.start);
        Self::control(lab, &format!("remove {node} {:#x} {bytes:#x}", memory.start))
    }

    fn unregister(&self, lab: &Lab, node: u32) -> Result<(), GuestError> {
        Self::control(lab, &format!("unregister {node}"))
    }

    fn allocate(&self, lab: &Lab, node: u32, order: u32, count: u64, movable: bool) -> Result<(), GuestError> {
        Self::control(lab, &format!("alloc {node} {order} {count}{}", if movable { "" } else { " unmovable" }))
    }

    fn free(&self, lab: &Lab, node: u32) -> Result<(), GuestError> {
        Self::control(lab, &format!("free {node}"))
    }

    fn place(&self, memory: &mut Memory, node: u32, pages: Pages) -> Result<(), GuestError> {
        memory.name_to(pages, &Self::file(node, "place"))
    }

    fn pages(&self, node: u32) -> String {
        Self::file(node, "pages")
    }

    fn notice_count(&self, lab: &Lab, node: u32, notice: Notice) -> Result<u64> {
        let name = match notice {
            Notice::Freed => "freed",
            Notice::Kept => "kept",
            Notice::Split => "split",
            Notice::MovedIn => "moved_in",
            Notice::MovedOut => "moved_out",
            Notice::WriteFault => "write_faults",
            Notice::MemoryFailure => "memory_failures",
        };
        Ok(lab.guest.read_text(&Self::file(node, name))?.parse()?)
    }

    fn on_write_fault(&self, lab: &Lab, node: u32, answer: WriteFault) -> Result<(), GuestError> {
        let mode = match answer {
            WriteFault::Copy => "0",
            WriteFault::Promote => "1",
            WriteFault::Refuse => "2",
        };
        lab.guest.write_file(&Self::file(node, "write_fault_mode"), mode)
    }

    fn keep_freed(&self, lab: &Lab, node: u32, keep: bool) -> Result<(), GuestError> {
        lab.guest.write_file(&Self::file(node, "keep_freed"), if keep { "1" } else { "0" })
    }

    fn release(&self, lab: &Lab, node: u32) -> Result<(), GuestError> {
        lab.guest.write_file(&Self::file(node, "release"), "1")
    }
}
