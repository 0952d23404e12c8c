//! The kernel tree's own selftests of private memory nodes, on a region's memory.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "selftests_private_nodes",
    story: "the kernel's selftests of private nodes: isolation, capabilities, write protection, no page lost",
    needs: &[
        Need::PrivateNodes,
        Need::Selftests("private_nodes"),
        Need::Config("MEMCG"),
        Need::Config("CPUSETS"),
        Need::Path("/sys/block/zram0"),
        Need::Path("/sys/kernel/debug/gup_test"),
        Need::Path("/sys/kernel/mm/numa/demotion_enabled"),
    ],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    // A long-term pin has to move what is in ZONE_MOVABLE.
    machine: MachineShape { selftests: true, append: "kernelcore=400M", ..MachineShape::USUAL },
    limit: Duration::from_secs(600),
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(300);

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_of(0, "-s 256M")?;
    let memory = lab.take_range(&region)?;
    let range = format!("{:#x},{:#x},{}", memory.start, memory.end - memory.start, region.node);
    for program in ["isolation", "capabilities", "write_protection", "pages", "lifecycle"] {
        lab.step(program);
        lab.selftest(&format!("private_nodes/{program}"), &[("PRIVATE_NODE_RANGE", &range)], LIMIT)?;
    }
    Ok(())
}
