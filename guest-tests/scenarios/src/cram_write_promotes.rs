//! Pages on the tier are never written there: each way to write brings the page to ordinary memory first.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_write_promotes",
    story: "every way to write a page on the tier ends in ordinary memory: promoted when it is one's own, copied when it is not",
    needs: &[Need::Cram, Need::Path("/sys/kernel/debug/split_huge_pages"), Need::Config("TRANSPARENT_HUGEPAGE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    machine: MachineShape { scratch_mib: Some(16), ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
/// Pages of the race.
const RACING: u64 = 16;
const DISK: &str = "/dev/vda";
const LIMIT: Duration = Duration::from_secs(30);
const BEFORE: Pattern = Pattern::Compressible { seed: 83, ratio: 3.0 };
const AFTER: Pattern = Pattern::Compressible { seed: 84, ratio: 3.0 };
const WAYS: [Way; 10] = [
    Way::Store,
    Way::Child,
    Way::Parent,
    Way::Mprotect,
    Way::Mremap,
    Way::ProcessVm,
    Way::ProcMem,
    Way::Read,
    Way::Vmsplice,
    Way::Spliced,
];

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let mut memory = lab.guest.memory()?;
    let mut trace = lab.guest.trace("promote", &[cram.event(CramEvent::Promote)])?;

    lab.step("small pages, each way to write");
    let mut ways = serde_json::Map::new();
    for way in WAYS {
        let map = placed(&cram, &mut memory, 4 * PAGE)?;
        let before = cram.counts(lab)?;
        memory.write(map.all(), way, &AFTER, LIMIT)?;
        // A child's write does not change its parent's page.
        let content = if way == Way::Child { &BEFORE } else { &AFTER };
        let name = json!(way).as_str().unwrap_or_default().to_owned();
        ways.insert(name, written(lab, &cram, &mut memory, &map, &before, content)?);
    }
    let map = placed(&cram, &mut memory, 4 * PAGE)?;
    let before = cram.counts(lab)?;
    memory.read_direct(map.all(), DISK, &AFTER, LIMIT)?;
    ways.insert("disk".to_owned(), written(lab, &cram, &mut memory, &map, &before, &AFTER)?);
    lab.fact("of 4 pages", ways);
    lab.fact("the trace tells of a promotion", lab.event(&mut trace, "cram_promote", &["nid", "nr", "how"])?);

    lab.step("one huge page: a page of it, then a page after it is split");
    let map = memory.map_huge(HUGE, LIMIT)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    lab.fact("huge: pages on the tier", memory.nodes(map.all())?.on(cram.node));
    for (what, page, split) in [("a page of it", 5, false), ("a page after the split", 9, true)] {
        if split {
            memory.ask(map.all(), Request::Split, LIMIT)?;
        }
        memory.write(map.pages(page, 1), Way::Store, &AFTER, LIMIT)?;
        let wrong = memory.verify(map.pages(page, 1), &AFTER, LIMIT)?.pages_wrong;
        let others = memory.verify(map.pages(page + 1, map.page_count() - page - 1), &BEFORE, LIMIT)?.pages_wrong;
        let there = memory.nodes(map.pages(page, 1))?.on(cram.node);
        lab.fact(&format!("huge: {what}"), json!({ "on the tier": there, "pages wrong": wrong + others }));
    }

    lab.step("readers and writers while the pages are moved to the tier over and over");
    let map = memory.map_anywhere(RACING * PAGE)?;
    let before = cram.counts(lab)?;
    let raced = memory.race(map.all(), (1, 2), 60_000, cram.node, LIMIT)?;
    let now = cram.counts(lab)?;
    lab.figure("pages read and written", format!("{} and {}", raced.reads, raced.writes));
    lab.figure("pages moved to the tier meanwhile", now.moved_in - before.moved_in);
    lab.figure("pages promoted and copied meanwhile", now.promoted + now.copied - before.promoted - before.copied);
    lab.fact("stores lost", raced.lost);
    lab.fact("readings of what was before, and of half a write", [raced.backward, raced.torn]);
    lab.fact("some went to the tier more than once", now.moved_in - before.moved_in > RACING);
    lab.fact(
        "and came back by being written",
        now.promoted + now.copied - before.promoted - before.copied > RACING / 2,
    );
    Ok(())
}

/// Maps pages, fills them and moves them to the tier.
fn placed(cram: &Cram, memory: &mut Memory, bytes: u64) -> Result<Mapping> {
    let map = memory.map_anywhere(bytes)?;
    memory.fill(map.all(), &BEFORE, LIMIT)?;
    let moved = memory.move_pages(map.all(), &[cram.node], LIMIT)?.on(cram.node);
    ensure!(moved == bytes / PAGE, "{moved} pages were moved to the tier");
    Ok(map)
}

/// Writes pages. Returns where they are, the cost, and whether their content is right.
fn written(
    lab: &Lab,
    cram: &Cram,
    memory: &mut Memory,
    map: &Mapping,
    before: &CramCounts,
    content: &Pattern,
) -> Result<Value> {
    let (left, now) = (memory.nodes(map.all())?.on(cram.node), cram.counts(lab)?);
    Ok(json!({
        "on the tier": left,
        "write faults": now.write_faults - before.write_faults,
        "promoted": now.promoted - before.promoted,
        "copied": now.copied - before.copied,
        "pages wrong": memory.verify(map.all(), content, LIMIT)?.pages_wrong,
    }))
}
