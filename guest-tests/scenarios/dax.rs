//! The same memory by turns a device file and a node's memory.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "dax",
    story: "/dev/dax0.0 mapped, filled beyond the cache and verified; then a node's memory; then a device file again",
    needs: &[Need::Config("DEV_DAX"), Need::Config("DEV_DAX_KMEM"), Need::Config("FS_DAX")],
    tell,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const FILE: Pattern = Pattern::Compressible { seed: 81, ratio: 4.0 };
const NODE: Pattern = Pattern::Compressible { seed: 82, ratio: 2.0 };

fn tell(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_on(0)?;
    let path = format!("/dev/{}", region.dax);

    lab.step("a device file, written by one program");
    lab.give_dax(&region.dax, "device_dax")?;
    mode(lab, "device file")?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 128 * MIB)?;
    memory.fill(map.all(), &FILE, LIMIT)?;
    let frames = memory.physical(&map, 0, map.page_count())?;
    lab.fact("pages in the region", region.holds(&frames));
    drop(memory);
    let status = lab.device().status()?;
    lab.fact("the cache was too small for it", status.resident.evicted > 0);
    // 128 MiB, four times smaller, and what the codec adds.
    lab.fact("it is compressed", (32 * MIB..48 * MIB).contains(&status.used));
    lab.figure("device file uses", format_bytes(status.used));

    lab.step("read by another");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 128 * MIB)?;
    let verdict = memory.verify(map.all(), &FILE, LIMIT)?;
    lab.fact("pages wrong in the file", verdict.pages_wrong);
    drop(memory);

    lab.step("a node's memory");
    lab.give_dax(&region.dax, "kmem")?;
    lab.online_node(region.node)?;
    mode(lab, "node")?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &NODE, LIMIT)?;
    let verdict = memory.verify(map.all(), &NODE, LIMIT)?;
    lab.fact("pages wrong on the node", verdict.pages_wrong);
    drop(memory);
    let said = lab.refused(&format!("daxctl reconfigure-device --mode=devdax {}", region.dax))?;
    lab.fact("while online.refused", said.lines().collect::<Vec<_>>());

    lab.step("a device file again");
    lab.offline_node(region.node)?;
    lab.give_dax(&region.dax, "device_dax")?;
    mode(lab, "device file again")?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 64 * MIB)?;
    memory.fill(map.all(), &FILE, LIMIT)?;
    let verdict = memory.verify(map.all(), &FILE, LIMIT)?;
    lab.fact("pages wrong in the file again", verdict.pages_wrong);
    Ok(())
}

fn mode(lab: &mut Lab, when: &str) -> Result<()> {
    let said = lab.json("daxctl list -D")?;
    lab.fact(when, pick(&said, &["chardev", "size", "target_node", "align", "mode", "online_memblocks"]));
    lab.fact(&format!("{when}.nodes with memory"), lab.guest.read_text("/sys/devices/system/node/has_memory")?.trim());
    Ok(())
}
