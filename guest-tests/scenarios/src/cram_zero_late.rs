//! The device zeroes freed memory later than the driver waits: no page that it may still wipe is used again before that.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_zero_late",
    story: "media operation Zero outlives the driver's timeout: its pages are held until it has ended, and nothing new is wiped",
    needs: &[Need::Cram],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 8 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 8 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const OLD: Pattern = Pattern::Compressible { seed: 101, ratio: 3.0 };
const NEW: Pattern = Pattern::Compressible { seed: 102, ratio: 3.0 };
/// Media Operations.
const ZERO: u16 = 0x4402;
/// Longer than the driver and Linux's mailbox wait, which is two seconds each.
const LATE: u64 = 6000;

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let empty = lab.device().status()?;
    for (what, phase) in [("background", control::Phase::Background), ("doorbell", control::Phase::Doorbell)] {
        lab.step(&format!("{what}: memory is freed, and Zero is late"));
        let old = pages(lab, &cram, &OLD)?;
        let before = cram.settled(lab)?;
        let delay = |count| control::DelayCommand { opcode: ZERO, milliseconds: LATE, phase, count };
        lab.device().execute(delay(1))?;
        let frames = frames(old)?;
        cram.wait(lab, "the driver to stop waiting", |now| now.scrub_stalls > before.scrub_stalls)?;
        let stalled = cram.counts(lab)?;

        lab.step(&format!("{what}: new memory comes meanwhile"));
        let mut memory = lab.guest.memory()?;
        let map = memory.map_anywhere(BYTES)?;
        memory.fill(map.all(), &NEW, LIMIT)?;
        memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        let reused =
            memory.physical(&map, 0, PAGES)?.into_iter().flatten().filter(|frame| frames.contains(frame)).count();
        let meanwhile = cram.counts(lab)?;

        lab.step(&format!("{what}: Zero ends at last"));
        let after = cram.settled(lab)?;
        let there = memory.nodes(map.all())?.on(cram.node);
        let verdict = memory.verify(map.all(), &NEW, LIMIT)?;
        lab.fact(
            what,
            json!({
                "freed pages held when the driver stopped waiting": stalled.held > 0,
                "still held when new ones had come": meanwhile.held > 0,
                "new pages on the tier": there, "of them in frames that the device may wipe": reused,
                "new pages wrong": verdict.pages_wrong,
                "freed pages scrubbed at last": after.scrubbed - before.scrubbed >= PAGES,
                "by the processor": after.scrubbed_by_cpu - before.scrubbed_by_cpu,
                "errors": after.scrub_errors - before.scrub_errors,
            }),
        );
        drop(memory);
        cram.wait(lab, "the new ones to be freed", |now| now.freed >= after.freed + PAGES)?;
        cram.settled(lab)?;
        lab.fact(&format!("{what}: media taken in the end"), lab.device().status()?.used - empty.used);
    }
    Ok(())
}

/// A program with pages on the tier, and the pages.
fn pages(lab: &Lab, cram: &Cram, content: &Pattern) -> Result<(Memory, Mapping)> {
    let mut memory = lab.guest.memory()?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), content, LIMIT)?;
    memory.move_pages(map.all(), &[cram.node], LIMIT)?;
    Ok((memory, map))
}

/// Ends the program, and returns the frames that it gave up.
fn frames((mut memory, map): (Memory, Mapping)) -> Result<Vec<u64>> {
    Ok(memory.physical(&map, 0, PAGES)?.into_iter().flatten().collect())
}
