//! Memory that the firmware sets up and reserves for a purpose: who gives it out.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "soft_reserved",
    story: "decoders committed, memory soft-reserved: dax_hmem makes it a node's before CXL is there; both see the same device",
    needs: &[Need::Config("DEV_DAX_HMEM"), Need::Config("DEV_DAX_KMEM")],
    machine: MachineShape { decoders: Decoders::Committed, soft_reserved: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 94, ratio: 3.0 };
const DAX: &str = "/sys/bus/dax/devices/dax0.0";

fn run(lab: &mut Lab) -> Result<()> {
    lab.guest.wait_path(&format!("{DAX}/target_node"), LIMIT)?;
    let parent = lab.sh(&format!("basename $(dirname $(readlink -f {DAX}))"))?;
    lab.fact("dax.made by", parent.trim().split('.').next());
    lab.fact("dax.driver", lab.sh(&format!("basename $(readlink {DAX}/driver)"))?.trim());
    let size = lab.guest.read_text(&format!("{DAX}/size"))?;
    lab.fact("dax.size", size.trim());
    let node = lab.guest.read_text(&format!("{DAX}/target_node"))?.trim().parse()?;
    lab.fact("dax.node", node);

    lab.step("a node's memory");
    lab.wait("the node's memory", |lab| Ok(lab.online_node(node).is_ok()))?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.fact("pages wrong", memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong);
    let frames = memory.physical(&map, 0, map.page_count())?;
    let inside = frames.iter().flatten().filter(|&&frame| lab.dpa(0, frame).is_ok()).count();
    lab.fact("pages on the device", inside);
    lab.fact("compressed there", lab.device().status()?.used > 16 * MIB);

    lab.step("the region of the committed decoders");
    let window = lab.window(0)?;
    let regions = format!("list -R -d {window}");
    lab.wait("Linux to make a region", |lab| Ok(!lab.cxl(&regions)?[0].is_null()))?;
    let regions = lab.cxl(&regions)?;
    lab.fact("region", pick(&regions, &["size", "type", "interleave_ways", "decode_state"]));
    lab.fact("dax devices", lab.guest.list_dir("/sys/bus/dax/devices")?.len());
    Ok(())
}
