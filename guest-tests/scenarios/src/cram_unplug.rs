//! The tier goes away while it is full and in use, and comes back.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_unplug",
    story: "the driver is unloaded under load with the tier full: all pages move to ordinary memory; the device is as new",
    needs: &[Need::Cram, Need::Config("MEMORY_HOTREMOVE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 32 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(180),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const DATA: Pattern = Pattern::Compressible { seed: 93, ratio: 3.0 };
const BULK: Pattern = Pattern::Same { word: 0x5a5a };

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    lab.step("the tier is full");
    let mut memory = lab.guest.memory()?;
    let (data, bulk) = (memory.map_anywhere(16 * MIB)?, memory.map_huge(224 * MIB, LIMIT)?);
    for (map, content) in [(&data, &DATA), (&bulk, &BULK)] {
        memory.fill(map.all(), content, LIMIT)?;
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    }
    let counts = cram.counts(lab)?;
    lab.figure("pages on the tier", counts.used_pages);
    lab.fact("nine tenths of it are used", counts.used_pages > counts.managed_pages * 9 / 10);
    lab.fact("all data are there", memory.nodes(data.all())?.on(cram.node) == data.page_count());

    lab.step("the driver is unloaded while another program writes and reads pages that go to the tier");
    let mut removed = Value::Null;
    let (raced, took) = cram.under_load(lab, 30_000, LIMIT, |lab| {
        removed = json!(errno(cram.remove(lab))?);
        Ok(())
    })?;
    lab.figure("unloading took", format!("{took:.1?}"));
    lab.fact("unloading", removed);
    lab.figure("pages moved to the tier before", raced.moved);
    lab.fact("stores lost", raced.lost);
    lab.fact("readings of what was before, and of half a write", [raced.backward, raced.torn]);
    // The program was still at work then. ENOMEM: the tier takes no more pages. ENODEV: the node is gone.
    lab.fact("moving to the tier was refused at last", matches!(raced.stopped, Some(12 | 19)));
    let private = lab.guest.read_text("/sys/devices/system/node/has_memory_private")?;
    lab.fact("nodes with private memory", private);
    lab.fact("regions", lab.cxl("list -R")?.as_array().map(Vec::len));
    lab.fact("pages of data by node", memory.nodes(data.all())?.nodes);
    let mut wrong = memory.verify(data.all(), &DATA, LIMIT)?;
    wrong.add(memory.verify(bulk.all(), &BULK, LIMIT)?);
    lab.fact("pages wrong", wrong.pages_wrong + wrong.pages_poisoned);
    lab.fact("media in use", lab.device().status()?.used);

    lab.step("the device is plain CXL memory again");
    memory.free(bulk)?;
    let region = lab.create_region_on(0)?;
    lab.online_node(region.node)?;
    let plain = memory.map_on(region.node, MIB, LIMIT)?;
    memory.fill(plain.all(), &DATA, LIMIT)?;
    lab.fact("pages wrong on the plain node", memory.verify(plain.all(), &DATA, LIMIT)?.pages_wrong);
    memory.free(plain)?;
    lab.offline_node(region.node)?;
    lab.destroy(&region.name)?;

    lab.step("and a tier again");
    let cram = lab.cram()?;
    memory.move_pages(data.all(), &[cram.node], LIMIT)?;
    lab.fact("all data are there again", memory.nodes(data.all())?.on(cram.node) == data.page_count());
    lab.fact("pages wrong on the tier", memory.verify(data.all(), &DATA, LIMIT)?.pages_wrong);
    Ok(())
}
