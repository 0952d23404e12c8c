//! Two devices that differ in their CDAT alone: the kernel gives each the tier that its speed deserves.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "tiers_follow_cdat",
    story: "a fast and a slow device, by their CDAT: regions, memory tiers and the order of demotion follow",
    needs: &[Need::Config("ACPI_HMAT"), Need::Config("PCI_DOE"), Need::Path("/sys/devices/virtual/memory_tiering")],
    devices: &[
        DeviceShape {
            capacity: 256 << 20,
            more: &["--latency", "100,120", "--bandwidth", "32000"],
            ..DeviceShape::USUAL
        },
        DeviceShape {
            capacity: 256 << 20,
            more: &["--latency", "2000,2500", "--bandwidth", "4500,2250", "--serial", "0x2222"],
            ..DeviceShape::USUAL
        },
    ],
    run,
    ..Scenario::USUAL
};

const NAMES: [&str; 2] = ["fast", "slow"];
/// What a region's directory says, in nanoseconds and MB/s.
const FIGURES: [&str; 4] = ["read_latency", "write_latency", "read_bandwidth", "write_bandwidth"];

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a region on each comes online");
    // A host bridge's decoders are committed in the order of their addresses.
    let mut order = [0, 1];
    order.sort_by_key(|&device: &usize| lab.bars[device].address);
    let mut regions = Vec::new();
    for device in order {
        let region = lab.create_region_on(device)?;
        lab.online_node(region.node)?;
        regions.push((device, region));
    }
    regions.sort_by_key(|(device, _)| *device);
    let regions: Vec<_> = regions.into_iter().map(|(_, region)| region).collect();

    lab.step("a region is as fast as its device and the path, which is the same for both");
    let mut figures = Vec::new();
    for (region, name) in regions.iter().zip(NAMES) {
        let directory = format!("/sys/bus/cxl/devices/{}/access0", region.name);
        let read = |figure: &str| -> Result<i64> {
            Ok(lab.guest.read_text(&format!("{directory}/{figure}"))?.trim().parse()?)
        };
        let own = FIGURES.map(read).into_iter().collect::<Result<Vec<_>>>()?;
        lab.figure(&format!("{name}: latency and bandwidth, read and write"), format!("{own:?}"));
        figures.push(own);
    }
    let slower = |figure: usize| figures[1][figure] - figures[0][figure];
    lab.fact("the slow one's latency is higher by, ns", [slower(0), slower(1)]);
    lab.fact("bandwidth of each, MB/s", figures.iter().map(|own| &own[2..]).collect::<Vec<_>>());

    lab.step("each has a tier of its own, below DRAM and in the order of their speed");
    let tiers = lab.memory_tiers()?;
    lab.figure("memory tiers", format!("{tiers:?}"));
    let of_node = |nodes: &str| match regions.iter().position(|region| nodes == region.node.to_string()) {
        Some(device) => NAMES[device].to_owned(),
        None => format!("node {nodes}"),
    };
    lab.fact("tiers, fastest first", tiers.values().map(|nodes| of_node(nodes)).collect::<Vec<_>>());
    let distance = |name: &str| tiers.iter().find(|(_, nodes)| of_node(nodes) == name).map(|(tier, _)| *tier);
    let (fast, slow) = (distance("fast").context("no tier")?, distance("slow").context("no tier")?);
    lab.fact("the slow tier is more than ten times as far", slow > 10 * fast);

    lab.step("demotion goes from DRAM to the fast one, and from there to the slow one");
    for (from, name) in [(0, "DRAM"), (regions[0].node, "fast")] {
        let targets = format!("Demotion targets for Node {from}: preferred: [0-9,-]*");
        let line = lab.sh(&format!("dmesg | grep -o '{targets}' | tail -n 1"))?;
        let to = of_node(line.trim().trim_end_matches(',').rsplit(' ').next().unwrap_or_default());
        lab.fact(&format!("from {name} to"), to);
    }
    Ok(())
}
