//! A machine whose firmware has set up CXL memory before Linux starts.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "precommitted",
    story: "the firmware has committed the decoders: Linux finds the region, flushes no cache; taken apart, made again",
    needs: &[Need::Config("DEV_DAX_KMEM")],
    machine: MachineShape { decoders: Decoders::Committed, restarts: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 91, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.found_region(0)?;
    found(lab, "found", &region)?;
    // As Linux would have to for a region of its own, and cannot on a hypervisor.
    lab.fact("found.the processors' caches were to be flushed", flushed(lab)?);
    used(lab, "found", &region)?;

    lab.step("taken apart, and made by Linux");
    lab.destroy(&region.name)?;
    lab.fact("destroyed", lab.decoders(0)?);
    let region = lab.create_region_on(0)?;
    let reports = lab.meets(Need::Config("CXL_REGION_INVALIDATION_TEST"))?;
    ensure!(!reports || flushed(lab)?, "the kernel has not flushed the processors' caches for a region that it made");
    used(lab, "made", &region)?;
    lab.destroy(&region.name)?;

    lab.step("the guest restarts: the firmware commits the decoders again");
    lab.reboot()?;
    let region = lab.found_region(0)?;
    found(lab, "after a restart", &region)?;
    used(lab, "after a restart", &region)
}

/// Records the region, and the decoders that it is made of.
fn found(lab: &mut Lab, when: &str, region: &Region) -> Result<()> {
    const FIELDS: &[&str] = &["region", "size", "type", "interleave_ways", "decode_state"];
    lab.fact(&format!("{when}.region"), pick(&region.listing, FIELDS));
    lab.fact(&format!("{when}.endpoint"), lab.decoders(0)?);
    let ports = lab.cxl("list -D -d switch")?;
    lab.fact(&format!("{when}.host bridge"), pick(&ports, &["decoder", "size", "region"]));
    Ok(())
}

/// Puts the region's memory online, uses it and takes it offline.
fn used(lab: &mut Lab, when: &str, region: &Region) -> Result<()> {
    lab.online_node(region.node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let frames = memory.physical(&map, 0, map.page_count())?;
    lab.fact(&format!("{when}.pages in the region"), region.holds(&frames));
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact(&format!("{when}.pages wrong"), verdict.pages_wrong);
    drop(memory);
    lab.offline_node(region.node)
}

fn flushed(lab: &Lab) -> Result<bool> {
    lab.holds("dmesg | grep -q 'Bypassing cpu_cache_invalidate_memregion'")
}
