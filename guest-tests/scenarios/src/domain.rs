//! Windows with their own proximity domains in the firmware's tables: HMAT and SLIT take precedence.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "domain",
    story: "two windows in SRAT with latency and bandwidth in HMAT: nodes, distances and memory tiers follow, not CDAT",
    needs: &[
        Need::Config("ACPI_HMAT"),
        Need::Config("ACPI_TABLE_UPGRADE"),
        Need::Path("/sys/devices/virtual/memory_tiering"),
    ],
    devices: &[DeviceShape { capacity: 256 << 20, ..DeviceShape::USUAL }; 2],
    machine: MachineShape { domains: &[NEAR, FAR], ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

/// Two times and ten times node 0's latency of 90 ns. CDAT has 250 ns for both.
const NEAR: Domain = Domain { latency_ns: 180, bandwidth_gib: 24 };
const FAR: Domain = Domain { latency_ns: 900, bandwidth_gib: 8 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the kernel takes the domains from the table, and adds none");
    let mapped = lab.sh("dmesg | grep -o 'SRAT: Node . PXM . .*hotplug' | sed 's/\\[.*\\] //'")?;
    lab.fact("SRAT", mapped.lines().collect::<Vec<_>>());

    lab.step("both windows come online");
    // A host bridge's decoders are committed in the order of their addresses.
    let mut order: Vec<usize> = (0..lab.bars.len()).collect();
    order.sort_by_key(|&index| lab.bars[index].address);
    for index in order {
        let region = lab.create_region_on(index)?;
        lab.fact(&format!("region {index}"), pick(&region.listing, &["region", "resource", "size"]));
        lab.fact(&format!("region {index} is the memory of node"), region.node);
        lab.online_node(region.node)?;
    }

    lab.step("latency and bandwidth are HMAT's, the distance is SLIT's");
    for node in [1, 2] {
        lab.fact(&format!("node {node}"), lab.performance(node)?);
    }
    let distances = lab.sh("cat /sys/devices/system/node/node?/distance")?;
    lab.fact("distances", distances.lines().collect::<Vec<_>>());

    lab.step("tiers follow latency and bandwidth, and demotion goes from one to the next");
    lab.fact("memory tiers", lab.memory_tiers()?);
    let targets = lab.sh("dmesg | grep -o 'Demotion targets for Node .*' | tail -n 3")?;
    lab.fact("demotion", targets.lines().collect::<Vec<_>>());
    Ok(())
}
