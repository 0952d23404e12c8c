//! Memory is added and removed under a running kernel: movable memory always, kernel memory only while it is not in use.

use std::collections::BTreeSet;

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "hotplug",
    story: "movable memory removed from under data, which moves to node 0; kernel memory in use is not given back",
    needs: &[
        Need::Config("MEMORY_HOTREMOVE"),
        Need::Config("DEV_DAX_KMEM"),
        Need::Config("CPUSETS"),
        Need::Config("CXL_MEM_RAW_COMMANDS"),
    ],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 31, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("plugged, and offline by default");
    let region = lab.create_region_on(0)?;
    lab.fact("plugged", blocks(lab, region.node)?);

    lab.step("online as movable memory, with data on it");
    lab.online_node(region.node)?;
    lab.fact("movable", blocks(lab, region.node)?);
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    // Without a policy, or the pages would have nowhere to go.
    lab.fact("pages by node", memory.nodes(map.all())?.nodes);

    lab.step("removed while the data is on it");
    lab.destroy(&region.name)?;
    lab.fact("pages by node after removal", memory.nodes(map.all())?.nodes);
    lab.fact("pages right after removal", right(&mut memory, &map)?);
    lab.fact("nodes with memory", lab.guest.read_text("/sys/devices/system/node/has_memory")?.trim());

    lab.step("the device cannot know that the data is gone; media operation Zero frees its media");
    lab.fact("device still holds it", lab.device().status()?.used > 16 * MIB);
    // Class 1, subclass 1 (Zero), one range: all of it.
    lab.mailbox(0x4402, "01010000010000000000000000000000 0000002000000000".replace(' ', "").as_str())?;
    lab.wait("the device to be empty", |lab| Ok(lab.device().status()?.used == 0))?;

    lab.step("plugged again, online as kernel memory by itself");
    lab.guest.write_file("/sys/devices/system/memory/auto_online_blocks", "online_kernel")?;
    let region = lab.create_region_on(0)?;
    let online = format!("! grep -q offline /sys/devices/system/node/node{}/memory*/state", region.node);
    lab.wait("the memory to be online", |lab| lab.holds(&online))?;
    lab.fact("kernel", blocks(lab, region.node)?);

    lab.step("the kernel uses it: page tables of a program confined to the node cannot move");
    let _program = lab.program_confined_to(region.node)?;
    let offline = lab.guest.run(&["cxl-cram-guest", "offline-node", "--node", &region.node.to_string()], LIMIT)?;
    let blocks: Value = serde_json::from_str(&offline.stdout.text())?;
    // How many blocks hold page tables varies.
    let why: BTreeSet<_> = blocks["failed"].as_array().into_iter().flatten().map(|failed| failed[1].as_str()).collect();
    lab.fact("offline.refused", why);
    let refusal = lab.refused(&format!("cxl disable-region {}", region.name))?;
    lab.fact("disable-region.refused", refusal.lines().collect::<Vec<_>>());
    Ok(())
}

/// States and zones of a node's memory blocks, and which nodes have memory that the kernel can use for itself.
fn blocks(lab: &Lab, node: u32) -> Result<Value> {
    let each = |file: &str| -> Result<Vec<String>> {
        let text = lab.sh(&format!("cat /sys/devices/system/node/node{node}/memory*/{file}"))?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    };
    let kernel = lab.guest.read_text("/sys/devices/system/node/has_normal_memory")?;
    Ok(json!({ "blocks": each("state")?, "zones": each("valid_zones")?, "nodes with kernel memory": kernel.trim() }))
}

fn right(memory: &mut Memory, map: &Mapping) -> Result<u64> {
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    Ok(verdict.pages - verdict.pages_wrong)
}
