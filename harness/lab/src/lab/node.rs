//! NUMA nodes: online, offline, addresses, demotion targets.

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// Puts all memory of a node online as movable.
    pub fn online_node(&self, node: u32) -> Result<()> {
        self.sh(&format!("cxl-cram-guest online-node --node {node} --policy online_movable")).map(drop)
    }

    /// Takes all memory of a node offline.
    pub fn offline_node(&self, node: u32) -> Result<()> {
        self.sh(&format!("cxl-cram-guest offline-node --node {node}")).map(drop)
    }

    /// The device's address (DPA) for a physical address of the guest: the offset in its window, which is its BAR.
    pub fn dpa(&self, device: usize, address: u64) -> Result<u64> {
        let window = self.bars.get(device).with_context(|| format!("there is no device {device}"))?;
        let dpa = address.checked_sub(window.address).filter(|&dpa| dpa < window.size);
        dpa.with_context(|| format!("{address:#x} is not in the window of device {device}"))
    }

    /// The demotion targets of node 0, from the kernel's log.
    pub fn demotion_targets(&self) -> Result<String> {
        let log = self.sh("dmesg | grep -o 'Demotion targets for Node 0.*' | tail -n 1")?;
        Ok(log.trim().to_owned())
    }
}
