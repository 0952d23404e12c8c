//! The device's memory becomes a NUMA node, goes away, and comes back.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "online",
    story: "a region becomes NUMA node 1 and a demotion target; destroyed and made again",
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

fn run(lab: &mut Lab) -> Result<()> {
    for round in ["first", "again"] {
        lab.step(&format!("{round}: create the region and put its memory online"));
        let region = lab.create_region()?;
        lab.fact(
            &format!("{round}.region"),
            pick(&region, &["region", "size", "type", "interleave_ways", "decode_state"]),
        );
        let endpoint = lab.cxl("list -E")?;
        lab.fact(&format!("{round}.decoders committed"), endpoint[0]["decoders_committed"].clone());
        lab.online_node(1)?;
        let node = node(lab)?;
        lab.fact(&format!("{round}.node 1"), node);

        lab.step(&format!("{round}: the kernel demotes to it"));
        // A lower tier number is faster. The order is the fact; the numbers follow from the performance.
        let tiers = lab.sh(
            "cd /sys/devices/virtual/memory_tiering && cat $(ls -d memory_tier[0-9]* | sort -V | sed 's,$,/nodelist,')",
        )?;
        lab.fact(&format!("{round}.nodes by memory tier"), tiers.lines().collect::<Vec<_>>());
        lab.fact(&format!("{round}.demotion"), lab.demotion_targets()?);

        lab.step(&format!("{round}: offline it and destroy the region"));
        lab.offline_node(1)?;
        lab.destroy_region()?;
        lab.fact(&format!("{round}.regions left"), lab.cxl("list -R")?.as_array().map_or(0, Vec::len));
        let endpoint = lab.cxl("list -E")?;
        lab.fact(&format!("{round}.decoders committed after"), endpoint[0]["decoders_committed"].clone());
    }
    Ok(())
}

/// Sizes and kinds of the node's memory.
fn node(lab: &Lab) -> Result<Value> {
    let meminfo = lab.guest.read_text("/sys/devices/system/node/node1/meminfo")?;
    let total = meminfo.lines().find(|line| line.contains("MemTotal")).context("node 1 has no MemTotal")?;
    let kib: u64 = total.split_whitespace().rev().nth(1).context("MemTotal has no number")?.parse()?;
    let movable = lab.guest.read_text("/sys/devices/system/node/has_normal_memory")?;
    Ok(json!({ "total": format_bytes(kib << 10), "nodes with kernel memory": movable.trim() }))
}
