//! Pages on the tier are read in place, whatever reads them.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_read_in_place",
    story: "pages on the tier are read by loads, by the disk, by two programs at once: none moves, no fault, the device serves them",
    needs: &[Need::Cram],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 4 << 20, ..DeviceShape::USUAL }],
    machine: MachineShape { scratch_mib: Some(16), ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 12 << 20;
const PAGES: u64 = BYTES / 4096;
const DISK: &str = "/dev/vda";
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 82, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    lab.step("pages are moved to the tier by move_pages");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let moved = memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    lab.fact("pages on the tier", moved.on(cram.node));
    lab.fact("CRAM has counted each of them", cram.counts(lab)?.moved_in == PAGES);

    lab.step("by loads");
    let before = cram.counts(lab)?;
    let (faults, used) = (lab.device().status()?.resident.faults, lab.device().status()?.used);
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("by loads", left(lab, &cram, &mut memory, &map, &before, &verdict)?);
    let served = lab.device().status()?.resident.faults - faults;
    lab.figure("pages that the device served", served);
    lab.fact("the device served nearly all of them", served > PAGES / 2);
    lab.fact("its media are as they were", lab.device().status()?.used == used);

    lab.step("by the disk, in place");
    let verdict = memory.write_direct(map.pages(0, 512), DISK, &DATA, LIMIT)?;
    lab.fact("by the disk", left(lab, &cram, &mut memory, &map, &before, &verdict)?);

    lab.step("by all processors at once");
    let mut other = lab.guest.memory()?;
    let neighbour = other.map_anywhere(BYTES)?;
    other.fill(neighbour.all(), &DATA, LIMIT)?;
    other.move_pages(neighbour.all(), &[cram.node], LIMIT)?;
    let before = cram.counts(lab)?;
    let both = std::thread::scope(|scope| {
        let beside = scope.spawn(|| other.verify(neighbour.all(), &DATA, LIMIT));
        let mut verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        verdict.add(beside.join().map_err(|_| anyhow!("a thread panicked"))??);
        Result::<_>::Ok(verdict)
    })?;
    lab.fact("two at once", left(lab, &cram, &mut memory, &map, &before, &both)?);
    Ok(())
}

/// The effects of reading, which should be none.
fn left(
    lab: &Lab,
    cram: &Cram,
    memory: &mut Memory,
    map: &Mapping,
    before: &CramCounts,
    verdict: &Verdict,
) -> Result<Value> {
    let now = cram.counts(lab)?;
    Ok(json!({
        "pages wrong": verdict.pages_wrong + verdict.pages_poisoned,
        "pages that left": map.page_count() - memory.nodes(map.all())?.on(cram.node),
        "write faults": now.write_faults - before.write_faults,
        "promoted": now.promoted - before.promoted,
        "copied": now.copied - before.copied,
    }))
}
