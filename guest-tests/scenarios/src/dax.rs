//! `daxctl` switches the same memory between a device file and a node's memory.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "dax",
    story: "daxctl makes the memory a device file, filled beyond the cache and verified; then a node's memory; then a file again",
    needs: &[Need::Config("DEV_DAX"), Need::Config("DEV_DAX_KMEM"), Need::Config("FS_DAX")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const FILE: Pattern = Pattern::Compressible { seed: 81, ratio: 4.0 };
const NODE: Pattern = Pattern::Compressible { seed: 82, ratio: 2.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_on(0)?;
    let path = format!("/dev/{}", region.dax);

    lab.step("a device file, written by one program");
    switch(lab, "device file", &format!("--mode=devdax {}", region.dax))?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 128 * MIB)?;
    memory.fill(map.all(), &FILE, LIMIT)?;
    let frames = memory.physical(&map, 0, map.page_count())?;
    lab.fact("pages in the region", region.holds(&frames));
    drop(memory);
    let status = lab.device().status()?;
    lab.fact("the cache was too small for it", status.resident.evicted > 0);
    // A quarter of 128 MiB, and the codec's overhead.
    lab.fact("it is compressed", (32 * MIB..48 * MIB).contains(&status.used));
    lab.figure("device file uses", format_bytes(status.used));

    lab.step("read by another");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 128 * MIB)?;
    let verdict = memory.verify(map.all(), &FILE, LIMIT)?;
    lab.fact("pages wrong in the file", verdict.pages_wrong);
    drop(memory);

    lab.step("a node's memory");
    switch(lab, "node", &format!("--mode=system-ram {}", region.dax))?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &NODE, LIMIT)?;
    let verdict = memory.verify(map.all(), &NODE, LIMIT)?;
    lab.fact("pages wrong on the node", verdict.pages_wrong);
    drop(memory);
    let refusal = lab.refused(&format!("daxctl reconfigure-device --mode=devdax {}", region.dax))?;
    lab.fact("while online.refused", refusal.lines().collect::<Vec<_>>());

    lab.step("a device file again");
    switch(lab, "device file again", &format!("--mode=devdax --force {}", region.dax))?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 64 * MIB)?;
    memory.fill(map.all(), &FILE, LIMIT)?;
    let verdict = memory.verify(map.all(), &FILE, LIMIT)?;
    lab.fact("pages wrong in the file again", verdict.pages_wrong);
    Ok(())
}

/// Switches the memory with `daxctl`, and records the result.
fn switch(lab: &mut Lab, when: &str, words: &str) -> Result<()> {
    const FIELDS: &[&str] = &["chardev", "size", "target_node", "align", "mode", "online_memblocks", "movable"];
    lab.json(&format!("daxctl reconfigure-device {words}"))?;
    let listing = lab.json("daxctl list -D")?;
    lab.fact(when, pick(&listing, FIELDS));
    lab.fact(&format!("{when}.nodes with memory"), lab.guest.read_text("/sys/devices/system/node/has_memory")?.trim());
    Ok(())
}
