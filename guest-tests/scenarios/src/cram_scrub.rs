//! Freed memory of the tier is scrubbed before it is reused: the device gets its media back, and no program sees old content.

use std::collections::BTreeSet;

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::Advice;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_scrub",
    story: "what a program frees on the tier is held, zeroed by the device in batches, and only then free; the media come back",
    needs: &[Need::Cram, Need::Config("TRANSPARENT_HUGEPAGE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 64 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 16 << 20;
const PAGES: u64 = BYTES / 4096;
/// Almost all of the tier.
const BULK: u64 = 248 << 20;
/// Pages to allocate from a full node: fewer than are held, because the allocator's reserve is refilled first.
const FEW: u64 = 128;
/// Pages that are held: fewer than a batch.
const HELD: u64 = 400;
const LIMIT: Duration = Duration::from_secs(30);
const SECRET: Pattern = Pattern::Random { seed: 91 };
/// Pages whose content is read from outside the guest.
const LOOKED_AT: usize = 16;

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let begin = lab.device().status()?;
    let counts = cram.counts(lab)?;

    lab.step("16 MiB in small pages and 16 MiB in huge ones are on the tier");
    let mut memory = lab.guest.memory()?;
    let (small, huge) = (memory.map_anywhere(BYTES)?, memory.map_huge(BYTES, LIMIT)?);
    for map in [&small, &huge] {
        memory.fill(map.all(), &SECRET, LIMIT)?;
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    }
    let mut frames: Vec<u64> = memory.physical(&small, 0, PAGES)?.into_iter().flatten().collect();
    frames.extend(memory.physical(&huge, 0, PAGES)?.into_iter().flatten());
    lab.fact("pages", frames.len());
    let full = lab.device().status()?;
    lab.fact("the media hold them", full.used - begin.used >= 2 * BYTES);
    let looked_at: Vec<u64> = frames.iter().copied().step_by(frames.len() / LOOKED_AT).collect();
    lab.fact("seen from outside of the guest before", lab.blank_pages(&looked_at)?);

    lab.step("half of the small pages are given back, then the program ends");
    memory.advise(small.pages(0, PAGES / 2), Advice::DontNeed, LIMIT)?;
    let now = cram.settled(lab)?;
    lab.fact("freed by MADV_DONTNEED and scrubbed", now.scrubbed - counts.scrubbed);
    drop(memory);
    let now = cram.wait(lab, "all to be freed", |now| now.freed - counts.freed >= 2 * PAGES)?;
    ensure!(now.freed >= now.scrubbed, "more was scrubbed than was freed: {now:?}");
    let now = cram.settled(lab)?;
    lab.fact("freed and scrubbed at the end", [now.freed - counts.freed, now.scrubbed - counts.scrubbed]);
    // Or the caches would write them back after the device has scrubbed, and take media again.
    lab.fact("of those, written back from the caches before", now.flushed - counts.flushed);
    lab.fact("held at the end", now.held);
    lab.fact("hardly a page is used", now.used_pages < 512);
    lab.fact("by the processor, errors", [now.scrubbed_by_cpu, now.scrub_errors]);
    lab.figure("batches", now.scrub_batches - counts.scrub_batches);
    lab.fact("in batches of many", (now.scrub_batches - counts.scrub_batches) * 16 < 2 * PAGES);
    let driver = cram.driver(lab)?;
    lab.figure("commands, ranges", format!("{}, {}", driver.zero_commands, driver.zero_ranges));
    lab.fact("the driver gave commands, and none failed", json!([driver.zero_commands > 0, driver.zero_errors]));

    lab.step("what the device holds, and what is visible from outside");
    let end = lab.device().status()?;
    lab.fact("media as before", end.used as i64 - begin.used as i64);
    lab.fact("stored bytes as before", end.logical as i64 - begin.logical as i64);
    lab.fact("seen from outside of the guest after", lab.blank_pages(&looked_at)?);

    lab.step("a lone page waits for a batch only for a limited time");
    let mut memory = lab.guest.memory()?;
    let one = memory.map_anywhere(4096)?;
    memory.fill(one.all(), &SECRET, LIMIT)?;
    memory.move_pages(one.all(), &[cram.node], LIMIT)?;
    let before = cram.counts(lab)?;
    memory.free(one)?;
    let now = cram.wait(lab, "the page to be scrubbed", |now| now.scrubbed > before.scrubbed)?;
    lab.fact("a lone page is scrubbed", now.scrubbed - before.scrubbed);

    lab.step("held pages are not handed out");
    cram.set(lab, Tunable::ScrubBatch, 1024)?;
    cram.set(lab, Tunable::ScrubInterval, 60_000)?;
    let map = memory.map_anywhere(HELD * 4096)?;
    memory.fill(map.all(), &SECRET, LIMIT)?;
    memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    let old: BTreeSet<u64> = memory.physical(&map, 0, HELD)?.into_iter().flatten().collect();
    memory.free(map)?;
    lab.fact("held", cram.wait(lab, "the pages to be held", |now| now.held >= HELD)?.held);
    let mut other = lab.guest.memory()?;
    let map = other.map_anywhere(BYTES)?;
    other.fill(map.all(), &Pattern::Same { word: 7 }, LIMIT)?;
    other.move_pages(map.all(), &[cram.node], LIMIT)?;
    let new = other.physical(&map, 0, PAGES)?;
    lab.fact("of those, handed out", new.iter().flatten().filter(|frame| old.contains(frame)).count());
    cram.set(lab, Tunable::ScrubInterval, 10)?;
    drop(other);
    cram.settled(lab)?;

    lab.step("on a node with only held pages, an allocation scrubs them");
    let (bulk, rest) = (memory.map_huge(BULK, LIMIT)?, memory.map_anywhere(BYTES)?);
    for map in [&bulk, &rest] {
        memory.fill(map.all(), &Pattern::Same { word: 7 }, LIMIT)?;
        // The rest does not fit.
        let _ = memory.move_pages(map.all(), &[cram.node], LIMIT);
    }
    let full = cram.counts(lab)?;
    lab.figure("pages of the node that nobody can have", full.managed_pages - full.used_pages);
    lab.fact("the node is full", memory.nodes(rest.all())?.on(cram.node) < PAGES);
    cram.set(lab, Tunable::ScrubInterval, 60_000)?;
    memory.advise(rest.pages(0, HELD), Advice::DontNeed, LIMIT)?;
    lab.fact("held on a full node", cram.wait(lab, "the pages to be held", |now| now.held >= HELD)?.held);
    let map = memory.map_anywhere(FEW * 4096)?;
    memory.fill(map.all(), &SECRET, LIMIT)?;
    let begin = Instant::now();
    let mut there = 0;
    while there < FEW && begin.elapsed() < LIMIT {
        let _ = memory.move_pages(map.all(), &[cram.node], LIMIT);
        there = memory.nodes(map.all())?.on(cram.node);
    }
    lab.figure("they were had after", format!("{:.1?}", begin.elapsed()));
    lab.fact("had by who wants them", there);
    lab.fact("pages of those wrong", memory.verify(map.all(), &SECRET, LIMIT)?.pages_wrong);
    Ok(())
}
