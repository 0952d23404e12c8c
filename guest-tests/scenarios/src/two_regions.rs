//! One device, two regions: each decoder has its part of the device, and removing one does not affect the other.
//!
//! Linux 6.12 warns about a duplicate `read_bandwidth` in sysfs when the second region is on the first one's node.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "two_regions",
    story: "two halves of a device, a node's memory and a dax device: each keeps its data when the other's region goes",
    needs: &[Need::Config("DEV_DAX"), Need::Config("DEV_DAX_KMEM"), Need::Config("FS_DAX")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const LOW: Pattern = Pattern::Compressible { seed: 21, ratio: 3.0 };
const HIGH: Pattern = Pattern::Compressible { seed: 22, ratio: 4.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("two regions of 256 MiB");
    let (low, high) = halves(lab)?;
    lab.fact("both", lab.decoders(0)?);
    for region in [&low, &high] {
        let dax = lab.json(&format!("daxctl list -d {}", region.dax))?;
        lab.fact(&region.name, pick(&dax, &["chardev", "size", "target_node", "mode"]));
    }

    lab.step("data in both, together more than the device's cache");
    let mut memory = lab.guest.memory()?;
    let (on_node, in_dax) = (node(lab, &mut memory, &low)?, dax(&mut memory, &high)?);
    let frames = memory.physical(&on_node, 0, on_node.page_count())?;
    lab.fact("pages of the node in the first region", low.holds(&frames));
    let frames = memory.physical(&in_dax, 0, in_dax.page_count())?;
    lab.fact("pages of the dax device in the second region", high.holds(&frames));

    lab.step("the kernel translates a device address of the second half by the second decoder");
    let memdev = lab.memdev(0)?;
    let debugfs = format!("/sys/kernel/debug/cxl/{memdev}");
    lab.guest.write_file(&format!("{debugfs}/inject_poison"), "0x1ffff000")?;
    let mut trace = lab.guest.trace("poison", &["cxl:cxl_poison"])?;
    lab.guest.write_file(&format!("/sys/bus/cxl/devices/{memdev}/trigger_poison_list"), "1")?;
    lab.fact("poison", lab.event(&mut trace, "cxl_poison", &["region", "dpa", "hpa", "dpa_length", "source"])?);
    lab.guest.write_file(&format!("{debugfs}/clear_poison"), "0x1ffff000")?;

    lab.step("the first region goes, out of order: Linux frees device memory from the end only");
    let verdict = memory.verify(on_node.all(), &LOW, LIMIT)?;
    lab.fact("pages wrong in the first", verdict.pages_wrong);
    memory.free(on_node)?;
    lab.offline_node(low.node)?;
    lab.sh(&format!("cxl disable-region {}", low.name))?;
    let refusal = lab.refused(&format!("cxl destroy-region {}", low.name))?;
    lab.fact("out of order.refused", refusal.lines().collect::<Vec<_>>());
    let verdict = memory.verify(in_dax.all(), &HIGH, LIMIT)?;
    lab.fact("out of order.pages wrong in the second", verdict.pages_wrong);
    drop(memory);
    lab.destroy(&high.name)?;
    // `cxl` left a region without its decoder.
    lab.sh(&format!("echo {} > /sys/bus/cxl/devices/{}/delete_region", low.name, lab.window(0)?))?;
    lab.fact("none", lab.decoders(0)?);

    lab.step("the second region goes, in order");
    let (low, high) = halves(lab)?;
    let mut memory = lab.guest.memory()?;
    let (on_node, in_dax) = (node(lab, &mut memory, &low)?, dax(&mut memory, &high)?);
    memory.free(in_dax)?;
    lab.destroy(&high.name)?;
    lab.fact("one", lab.decoders(0)?);
    let verdict = memory.verify(on_node.all(), &LOW, LIMIT)?;
    lab.fact("in order.pages wrong in the first", verdict.pages_wrong);
    Ok(())
}

/// Makes the device's lower half a node, and its upper half a device file.
fn halves(lab: &Lab) -> Result<(Region, Region)> {
    let low = lab.create_region_of(0, "-s 256M")?;
    let high = lab.create_region_of(0, "-s 256M")?;
    lab.give_dax(&high.dax, "device_dax")?;
    Ok((low, high))
}

fn node(lab: &Lab, memory: &mut Memory, region: &Region) -> Result<Mapping> {
    lab.online_node(region.node)?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &LOW, LIMIT)?;
    Ok(map)
}

fn dax(memory: &mut Memory, region: &Region) -> Result<Mapping> {
    let map = memory.map_shared(&format!("/dev/{}", region.dax), 64 * MIB)?;
    memory.fill(map.all(), &HIGH, LIMIT)?;
    Ok(map)
}
