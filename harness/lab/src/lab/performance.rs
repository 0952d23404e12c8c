//! The kernel's results from HMAT and CDAT: a node's performance and its memory tier.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Lab;

impl Lab {
    /// Latency (ns) and bandwidth (MB/s) of a node with memory online, as `accessN.read_latency` and so on, and the initiator
    /// node, as `accessN.from`.
    pub fn performance(&self, node: u32) -> Result<BTreeMap<String, String>> {
        let directory = format!("/sys/devices/system/node/node{node}");
        let lines = self.sh(&format!(
            "cd {directory} && for access in access*; do grep -H . $access/initiators/*_*; ls -d $access/initiators/node* 2>/dev/null; done; true"
        ))?;
        let figure = |line: &str| {
            let (access, rest) = line.split_once("/initiators/").with_context(|| format!("{directory}: {line}"))?;
            let (name, value) = rest.split_once(':').unwrap_or(("from", rest));
            Ok((format!("{access}.{name}"), value.to_owned()))
        };
        lines.lines().map(figure).collect()
    }

    /// The memory tiers, fastest first, by number and nodes. The number is the abstract distance in units of 128
    /// (`MEMTIER_CHUNK_SIZE`).
    pub fn memory_tiers(&self) -> Result<BTreeMap<u32, String>> {
        let lines = self.sh("cd /sys/devices/virtual/memory_tiering && grep -H . memory_tier*/nodelist")?;
        let tier = |line: &str| {
            let (tier, nodes) = line.split_once("/nodelist:")?;
            Some((tier.strip_prefix("memory_tier")?.parse().ok()?, nodes.to_owned()))
        };
        lines.lines().map(|line| tier(line).with_context(|| format!("a memory tier: {line}"))).collect()
    }
}
