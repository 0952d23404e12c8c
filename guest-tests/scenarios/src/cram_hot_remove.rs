//! The PCI function of a tier in use is removed, and its bus is reset.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_hot_remove",
    story: "under load the PCI function is removed from under a tier in use, and its bus reset: nothing is lost, it is a tier again",
    needs: &[Need::Cram, Need::Config("MEMORY_HOTREMOVE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 32 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const DATA: Pattern = Pattern::Compressible { seed: 99, ratio: 3.0 };
const BULK: Pattern = Pattern::Same { word: 0x5a5a };

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let function = lab.function(0)?;
    let mut memory = lab.guest.memory()?;
    let data = memory.map_anywhere(8 * MIB)?;
    memory.fill(data.all(), &DATA, LIMIT)?;

    lab.step("a quarter of the tier is in use");
    let bulk = memory.map_huge(64 * MIB, LIMIT)?;
    memory.fill(bulk.all(), &BULK, LIMIT)?;
    memory.move_pages(bulk.all(), &[cram.node], LIMIT)?;
    lab.fact("pages on the tier", memory.nodes(bulk.all())?.on(cram.node));
    taken_away(lab, &cram, &mut memory, &data, "removed", &format!("echo 1 > /sys/bus/pci/devices/{function}/remove"))?;
    let verdict = memory.verify(bulk.all(), &BULK, LIMIT)?;
    lab.fact("pages of these wrong", verdict.pages_wrong + verdict.pages_poisoned);
    memory.free(bulk)?;

    lab.step("found again");
    lab.sh("echo 1 > /sys/bus/pci/rescan")?;
    let cram = found(lab, &mut memory, &data, "found again")?;

    let reset = format!("cd /sys/bus/pci/devices/{function} && echo cxl_bus > reset_method && echo 1 > reset");
    taken_away(lab, &cram, &mut memory, &data, "bus reset", &reset)?;
    // The decoders no longer match the kernel's state. Mainline warns about that, and this is its remedy.
    lab.sh(&format!("cd /sys/bus/pci/drivers/cxl_pci && echo {function} > unbind && echo {function} > bind"))?;
    found(lab, &mut memory, &data, "bound again after the reset")?;
    Ok(())
}

/// Removes the device while data is on its tier, and another program reads and writes pages that go there.
fn taken_away(lab: &mut Lab, cram: &Cram, memory: &mut Memory, data: &Mapping, what: &str, line: &str) -> Result<()> {
    lab.step(&format!("{what}, under load"));
    memory.move_pages(data.all(), &[cram.node], LIMIT)?;
    let before = memory.nodes(data.all())?.on(cram.node);
    let (raced, took) = cram.under_load(lab, 20_000, LIMIT, |lab| lab.sh(line).map(drop))?;
    lab.figure(&format!("{what}: took"), format!("{took:.1?}"));
    let private = lab.guest.read_text("/sys/devices/system/node/has_memory_private")?;
    let verdict = memory.verify(data.all(), &DATA, LIMIT)?;
    lab.fact(
        what,
        json!({
            "pages of data on the tier before": before,
            "pages of data by node after": memory.nodes(data.all())?.nodes,
            "nodes with private memory": private,
            "pages wrong": verdict.pages_wrong + verdict.pages_poisoned,
            "stores lost": raced.lost,
            "readings of what was before, and of half a write": [raced.backward, raced.torn],
        }),
    );
    Ok(())
}

/// Waits until the driver has made the device's memory a tier again, and moves the data there.
fn found(lab: &mut Lab, memory: &mut Memory, data: &Mapping, what: &str) -> Result<Cram> {
    lab.wait("the memory device", |lab| Ok(lab.memdev(0).is_ok()))?;
    let cram = lab.cram_of(0)?;
    memory.move_pages(data.all(), &[cram.node], LIMIT)?;
    let there = memory.nodes(data.all())?.on(cram.node);
    let verdict = memory.verify(data.all(), &DATA, LIMIT)?;
    lab.fact(
        what,
        json!({
            "pages of data on the tier": there, "pages wrong": verdict.pages_wrong + verdict.pages_poisoned,
        }),
    );
    Ok(cram)
}
