//! The smallest driver of a private node: memory only for programs that ask for the node by policy.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "mempolicy_sample",
    story: "the sample driver's node: pages come by mbind, move_pages and migrate_pages, by nothing else, and leave with the driver",
    needs: &[Need::PrivateNodes, Need::Module("cxl_mempolicy_sample"), Need::Config("MEMCG")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const PAGES: u64 = 256;
const BYTES: u64 = PAGES * 4096;
const MODULE: &str = "cxl_mempolicy_sample";
const PRIVATE: &str = "/sys/devices/system/node/has_memory_private";
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 97, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the driver makes a node from the device");
    lab.load_module(MODULE, "")?;
    lab.wait("the node to appear", |lab| Ok(!lab.guest.read_text(PRIVATE)?.is_empty()))?;
    let node: u32 = lab.guest.read_text(PRIVATE)?.parse().context("more than one node is private")?;
    lab.fact("node", node);
    lab.fact("nodes with memory for everybody", lab.guest.read_text("/sys/devices/system/node/has_memory")?);
    let begin = lab.allocations_from(node)?;

    lab.step("a program that does not ask gets nothing from it");
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("others")?;
    let mut other = lab.memory_in(&group)?;
    let map = other.map_anywhere(BYTES)?;
    other.fill(map.all(), &DATA, LIMIT)?;
    lab.reclaim(&group, BYTES)?;
    lab.fact("pages from it by no policy, by demotion", lab.allocations_from(node)? - begin);

    lab.step("a program that asks");
    let mut memory = lab.guest.memory()?;
    let bound = memory.map_anywhere(BYTES)?;
    memory.bind(bound.all(), Policy::Bind, &[node], LIMIT)?;
    memory.fill(bound.all(), &DATA, LIMIT)?;
    lab.fact("by mbind", memory.nodes(bound.all())?.on(node));
    lab.fact("written in place", {
        memory.touch(bound.all(), true, 1, LIMIT)?;
        memory.nodes(bound.all())?.on(node)
    });
    lab.fact("moved to it", other.move_pages(map.all(), &[node], LIMIT)?.on(node));
    other.migrate(&[node], &[0], LIMIT)?;
    lab.fact("left by migrate_pages", other.nodes(map.all())?.on(node));
    let wrong = [memory.verify(bound.all(), &DATA, LIMIT)?, other.verify(map.all(), &DATA, LIMIT)?];
    lab.fact("pages wrong", wrong.iter().map(|verdict| verdict.pages_wrong).sum::<u64>());

    lab.step("the driver is unloaded");
    lab.fact("unloading", errno(lab.unload_module(MODULE))?);
    lab.fact("private nodes", lab.guest.read_text(PRIVATE)?);
    lab.fact("bound pages by node", memory.nodes(bound.all())?.nodes);
    lab.fact("bound pages wrong", memory.verify(bound.all(), &DATA, LIMIT)?.pages_wrong);
    Ok(())
}
