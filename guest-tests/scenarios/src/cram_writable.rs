//! A share of the tier may be written in place, as long as the device does not ask for room.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_writable",
    story: "up to a share of the used pages is written in place; pressure, or a smaller share, takes that back",
    needs: &[Need::Cram],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const PAGES: u64 = 1024;
/// Other pages on the tier. The kernel's count of used pages is off by the pages on the processors' lists, some hundreds.
const BALLAST: u64 = 2048;
const LIMIT: Duration = Duration::from_secs(20);
const BEFORE: Pattern = Pattern::Compressible { seed: 85, ratio: 3.0 };
const AFTER: Pattern = Pattern::Compressible { seed: 86, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    // Only this scenario changes the pressure.
    cram.set(lab, Tunable::OccupancyInterval, 0)?;
    let mut memory = lab.guest.memory()?;
    let ballast = memory.map_anywhere(BALLAST * 4096)?;
    memory.fill(ballast.all(), &BEFORE, LIMIT)?;
    memory.move_pages(ballast.all(), &[cram.node], LIMIT)?;

    lab.step("off by default: every written page leaves");
    let (map, off) = written(lab, &cram, &mut memory)?;
    lab.fact("off", off);
    memory.free(map)?;

    lab.step("a tenth of the used pages may be writable");
    cram.set(lab, Tunable::WritablePermille, 100)?;
    let (map, tenth) = written(lab, &cram, &mut memory)?;
    let writable = tenth["writable"].as_u64().unwrap_or_default();
    let stay = tenth["on the tier"].as_u64().unwrap_or_default();
    lab.figure("writable at a tenth, on the tier", format!("{writable}, {stay}"));
    lab.fact("a tenth", json!({
        "some are writable, but not half of them": (1..PAGES / 2).contains(&writable),
        // As pages leave, fewer may be writable, and some lose write access; those stay until they are written again.
        "those stay": stay >= writable,
        "what does not stay is promoted": tenth["promoted"] == PAGES - stay,
        "each is a write fault, some are two": (PAGES..PAGES * 2).contains(&tenth["write faults"].as_u64().unwrap_or_default()),
        "pages wrong": tenth["pages wrong"],
    }));
    memory.free(map)?;

    lab.step("all of them, and then pressure");
    cram.set(lab, Tunable::WritablePermille, 1000)?;
    let (map, all) = written(lab, &cram, &mut memory)?;
    lab.fact("all", all);
    let revoked = cram.counts(lab)?.revoked;
    cram.set(lab, Tunable::Pressure, 1)?;
    cram.wait(lab, "write protection to be back", |counts| counts.writable == 0)?;
    let before = cram.counts(lab)?;
    memory.touch(map.all(), true, 1, LIMIT)?;
    let now = cram.counts(lab)?;
    lab.fact(
        "revoked by pressure, then written",
        json!({
            "revoked": before.revoked - revoked, "write faults": now.write_faults - before.write_faults,
            "on the tier": memory.nodes(map.all())?.on(cram.node),
        }),
    );
    cram.set(lab, Tunable::Pressure, 0)?;
    memory.free(map)?;

    lab.step("all of them, and then none");
    let (map, all) = written(lab, &cram, &mut memory)?;
    lab.fact("all again", all);
    let before = cram.counts(lab)?;
    cram.set(lab, Tunable::WritablePermille, 0)?;
    let now = cram.wait(lab, "write protection to be back", |counts| counts.writable == 0)?;
    lab.fact("revoked because none may be", now.revoked - before.revoked);
    memory.touch(map.all(), true, 1, LIMIT)?;
    lab.fact("on the tier after that", memory.nodes(map.all())?.on(cram.node));
    lab.fact("pages wrong", memory.verify(map.all(), &AFTER, LIMIT)?.pages_wrong);
    Ok(())
}

/// Fills pages, moves them to the tier, and writes them twice. Returns the cost, and how many stayed.
fn written(lab: &Lab, cram: &Cram, memory: &mut Memory) -> Result<(Mapping, Value)> {
    let map = memory.map_anywhere(PAGES * 4096)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    let before = cram.counts(lab)?;
    for _ in 0..2 {
        memory.fill(map.all(), &AFTER, LIMIT)?;
    }
    let now = cram.counts(lab)?;
    let what = json!({
        "write faults": now.write_faults - before.write_faults, "promoted": now.promoted - before.promoted,
        "on the tier": memory.nodes(map.all())?.on(cram.node), "writable": now.writable,
        "pages wrong": memory.verify(map.all(), &AFTER, LIMIT)?.pages_wrong,
    });
    Ok((map, what))
}
