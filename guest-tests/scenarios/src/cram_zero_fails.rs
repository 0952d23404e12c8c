//! The device fails to zero freed memory: the processor does it, and no program sees old content.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_zero_fails",
    story: "media operation Zero is refused, fails in the background, fails once in a batch: the processor zeroes, all is free again",
    needs: &[Need::Cram, Need::Config("TRANSPARENT_HUGEPAGE")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 8 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 4 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const SECRET: Pattern = Pattern::Random { seed: 97 };
/// Pages whose content is read from outside the guest.
const LOOKED_AT: usize = 16;
/// Media Operations.
const ZERO: u16 = 0x4402;
/// Internal Error, Permanent Media Failure (CXL 3.1, table 8-34).
const INTERNAL: u16 = 0x04;
const MEDIA: u16 = 0x11;
/// More failures than there are commands.
const ALL: u64 = 1 << 32;

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let empty = lab.device().status()?;
    for (what, code, count, background) in [
        ("refused", INTERNAL, ALL, false),
        ("failing in the background", MEDIA, ALL, true),
        ("failing once", INTERNAL, 1, true),
        ("as it should be", INTERNAL, 0, false),
    ] {
        lab.step(&format!("Zero {what}: secrets are on the tier"));
        let mut memory = lab.guest.memory()?;
        let (small, huge) = (memory.map_anywhere(BYTES)?, memory.map_huge(BYTES, LIMIT)?);
        for map in [&small, &huge] {
            memory.fill(map.all(), &SECRET, LIMIT)?;
            memory.move_pages(map.all(), &[cram.node], LIMIT)?;
        }
        let mut frames: Vec<u64> = memory.physical(&small, 0, PAGES)?.into_iter().flatten().collect();
        frames.extend(memory.physical(&huge, 0, PAGES)?.into_iter().flatten());
        let looked_at: Vec<u64> = frames.iter().copied().step_by(frames.len() / LOOKED_AT).collect();
        let seen = lab.blank_pages(&looked_at)?;
        let (counts, driver) = (cram.settled(lab)?, cram.driver(lab)?);

        lab.step(&format!("Zero {what}: they are freed"));
        let failures = |count| control::FailCommand { opcode: ZERO, return_code: code, count, background };
        lab.device().execute(failures(count))?;
        drop(memory);
        cram.wait(lab, "all to be freed", |now| now.freed - counts.freed >= 2 * PAGES)?;
        let now = cram.settled(lab)?;
        let left = lab.device().execute(failures(0))?.left_before;
        let failed = count - left;
        let by_cpu = now.scrubbed_by_cpu - counts.scrubbed_by_cpu;
        lab.figure(&format!("Zero {what}: commands that failed"), failed);
        lab.fact(
            &format!("Zero {what}"),
            json!({
                "pages on the tier": frames.len(),
                "seen from outside of the guest before": seen,
                "freed": now.freed - counts.freed,
                "scrubbed": now.scrubbed - counts.scrubbed,
                "commands that failed": if failed > 1 { json!("more than one") } else { json!(failed) },
                "the driver, and CRAM, have counted them": [
                    cram.driver(lab)?.zero_errors - driver.zero_errors == failed,
                    now.scrub_errors - counts.scrub_errors == failed,
                ],
                "zeroed by the processor": match by_cpu {
                    0 => "none",
                    by_cpu if by_cpu == 2 * PAGES => "all",
                    _ => "some",
                },
                "seen from outside of the guest after": lab.blank_pages(&looked_at)?,
                "media taken": lab.device().status()?.used - empty.used,
                "hardly a page is used": now.used_pages < 512,
            }),
        );
    }
    Ok(())
}
