//! The device asks for room and stops asking, over and over, while the load's data alternates between compressible and not.

use std::sync::atomic::{AtomicBool, Ordering};

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_pressure",
    story: "100 low and 100 high crossings under load: each one reaches the driver, stops demotion or resumes it, and no wait is endless",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Path("/sys/block/zram0")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 32 << 20, cache: 8 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(180),
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 2 << 20;
/// Noise that stays on the tier: an eighth of the media.
const ANCHOR: u64 = 4 << 20;
/// More noise beside it, which crosses the watermark: less than a tenth of the media is left, but everything fits.
const DATA: u64 = 26 << 20;
const TIMES: u64 = 100;
/// Pages by which the kernel's count of free pages may be off.
const SLACK: u64 = 512;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 89, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 90 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.swap_on_zram(128)?;
    let cram = lab.cram()?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("load")?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &SOFT, LIMIT)?;
    // Pages that cannot be swapped stay: the medium is never empty, and crosses only where the scenario moves a watermark.
    let anchored = lab.cgroup("anchor")?;
    lab.write(&anchored, "memory.swap.max", "0")?;
    let mut anchor = lab.memory_in(&anchored)?;
    let weight = anchor.map_anywhere(ANCHOR)?;
    anchor.fill(weight.all(), &NOISE, LIMIT)?;
    anchor.move_pages(weight.all(), &[cram.node], LIMIT)?;

    lab.step("crossings by the device's watermarks, under load");
    let (before, heard) = (lab.device().status()?, cram.driver(lab)?);
    let over = AtomicBool::new(false);
    let loaded: Result<(u64, u64)> = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(lab, &group, &mut memory, &map, &over));
        let crossed = crossings(lab, &cram);
        over.store(true, Ordering::Release);
        let load = load.join().map_err(|_| anyhow!("a thread panicked"))?;
        crossed.and(load)
    });
    let (passes, wrong) = loaded?;
    lab.figure("passes of the load meanwhile", passes);
    lab.fact("the load went on", passes > 0);
    lab.fact("pages wrong", wrong);
    let (after, driver) = (lab.device().status()?, cram.driver(lab)?);
    let crossed = [after.crossings.low - before.crossings.low, after.crossings.high - before.crossings.high];
    lab.figure("crossings", format!("{} low, {} high", crossed[0], crossed[1]));
    lab.fact("a hundred of each", crossed.iter().all(|&crossings| crossings >= TIMES));
    let heard = [driver.low_interrupts - heard.low_interrupts, driver.high_interrupts - heard.high_interrupts];
    let signalled = |vector: u32| -> u64 {
        let count = |status: &Status| status.interrupts.get(&vector).copied().unwrap_or(0);
        count(&after) - count(&before)
    };
    lab.fact("the driver heard each interrupt", heard == [signalled(12), signalled(13)]);

    lab.step("crossings in quick succession: two processors may take the two interrupts in any order");
    for _ in 0..TIMES / 4 {
        for (low, high) in [(95.0, 97.0), (1.0, 2.0)] {
            lab.device().set_watermarks(low, high)?;
        }
        cram.wait(lab, "demotion to resume", |counts| counts.pressure < 1000)
            .with_context(|| crossing_counts(lab, &cram))?;
    }

    lab.step("crossings by data: noise until demotion stops, until eviction has made room");
    lab.device().set_watermarks(10.0, 20.0)?;
    let after = lab.device().status()?;
    let noise = memory.map_anywhere(DATA)?;
    memory.fill(noise.all(), &NOISE, LIMIT)?;
    // Requests for room come from interrupts alone.
    cram.set(lab, Tunable::OccupancyInterval, 0)?;
    memory.move_pages(noise.all(), &[cram.node], LIMIT)?;
    lab.wait("the device to ask for room and stop asking", |lab| {
        let crossings = lab.device().status()?.crossings;
        Ok(crossings.low > after.crossings.low && crossings.high > after.crossings.high)
    })?;
    let counts = cram.wait(lab, "pressure to be relieved", |counts| counts.pressure < 1000)?;
    let status = lab.device().status()?;
    lab.figure("pages evicted", counts.evicted);
    lab.fact("stores lost", status.overflows);
    let verdict = memory.verify(noise.all(), &NOISE, LIMIT)?;
    lab.fact("pages of noise wrong", verdict.pages_wrong + verdict.pages_poisoned);

    lab.step("pressure set by hand: values in between throttle");
    memory.free(noise)?;
    anchor.free(weight)?;
    for pressure in [0, 900, 1000] {
        cram.set(lab, Tunable::Pressure, pressure)?;
        memory.fill(map.all(), &SOFT, LIMIT)?;
        let before = cram.counts(lab)?;
        // Fresh pages are young, or still on a processor's way to the LRU lists: the first times may only make them older.
        let mut now = before.clone();
        for _ in 0..20 {
            lab.reclaim(&group, BYTES)?;
            now = cram.counts(lab)?;
            if now.demoted > before.demoted || now.refused > before.refused {
                break;
            }
        }
        let free = now.managed_pages - now.used_pages;
        lab.fact(
            &format!("pressure {pressure}"),
            json!({
                "pages come": now.demoted > before.demoted, "are refused": now.refused > before.refused,
                "as much is free as is asked": free + SLACK >= now.managed_pages * pressure / 1000,
            }),
        );
    }
    Ok(())
}

/// Moves the watermarks so that the medium crosses them, and waits each time until the kernel has reacted.
fn crossings(lab: &Lab, cram: &Cram) -> Result<()> {
    for _ in 0..TIMES {
        for (low, high, stopped) in [(95.0, 97.0, true), (1.0, 2.0, false)] {
            lab.device().set_watermarks(low, high)?;
            let what = if stopped { "demotion to stop" } else { "demotion to resume" };
            cram.wait(lab, what, |counts| (counts.pressure == 1000) == stopped)
                .with_context(|| crossing_counts(lab, cram))?;
        }
    }
    Ok(())
}

/// Crossings that the device raised and the driver counted, for an error message.
fn crossing_counts(lab: &Lab, cram: &Cram) -> String {
    format!("the device: {:?}; the driver: {:?}", lab.device().status(), cram.driver(lab))
}

/// Writes, cools and reads the same pages, alternately compressible and not. Returns how often, and how many were wrong.
fn load(lab: &Lab, group: &Cgroup, memory: &mut Memory, map: &Mapping, over: &AtomicBool) -> Result<(u64, u64)> {
    let (mut passes, mut wrong) = (0, 0);
    while !over.load(Ordering::Acquire) {
        let content = if passes % 2 == 0 { &NOISE } else { &SOFT };
        memory.fill(map.all(), content, LIMIT)?;
        lab.reclaim(group, BYTES / 2)?;
        let verdict = memory.verify(map.all(), content, LIMIT)?;
        wrong += verdict.pages_wrong + verdict.pages_poisoned;
        passes += 1;
    }
    Ok((passes, wrong))
}
