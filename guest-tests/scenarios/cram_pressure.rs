//! The device asks and lets go, over and over, under a load that goes from compressible to not and back.

use std::sync::atomic::{AtomicBool, Ordering};

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "cram_pressure",
    story: "100 low and 100 high crossings under load: each is heard, stops demotion or resumes it, and nobody waits for ever",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Path("/sys/block/zram0")],
    devices: &[DeviceShape { capacity: "256M", physical: "32M", cache: "8M", ..DeviceShape::USUAL }],
    limit: Duration::from_secs(180),
    tell,
    ..Scenario::USUAL
};

const BYTES: u64 = 2 << 20;
/// Noise that stays on the tier: an eighth of the media.
const ANCHOR: u64 = 4 << 20;
/// Noise that is too much beside it: less than a tenth of the media is left, but all fits.
const DATA: u64 = 26 << 20;
const TIMES: u64 = 100;
/// Pages by which the kernel's count of free ones may be off.
const SLACK: u64 = 512;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 89, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 90 };

fn tell(lab: &mut Lab) -> Result<()> {
    lab.swap_on_zram(128)?;
    let cram = lab.cram()?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("load")?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &SOFT, LIMIT)?;
    // What cannot be swapped stays: the medium is never empty, and crosses only where it is told to.
    let anchored = lab.cgroup("anchor")?;
    lab.write(&anchored, "memory.swap.max", "0")?;
    let mut anchor = lab.memory_in(&anchored)?;
    let weight = anchor.map_anywhere(ANCHOR)?;
    anchor.fill(weight.all(), &NOISE, LIMIT)?;
    anchor.move_pages(weight.all(), &[cram.node], LIMIT)?;

    lab.step("crossings by the device's watermarks, under load");
    let (before, heard) = (lab.device().status()?, cram.driver(lab)?);
    let over = AtomicBool::new(false);
    let told: Result<(u64, u64)> = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(lab, &group, &mut memory, &map, &over));
        let crossed = crossings(lab, &cram);
        over.store(true, Ordering::Release);
        let load = load.join().map_err(|_| anyhow!("a thread panicked"))?;
        crossed.and(load)
    });
    let (passes, wrong) = told?;
    lab.figure("passes of the load meanwhile", passes);
    lab.fact("the load went on", passes > 0);
    lab.fact("pages wrong", wrong);
    let (after, told) = (lab.device().status()?, cram.driver(lab)?);
    let crossed = [after.crossings.low - before.crossings.low, after.crossings.high - before.crossings.high];
    lab.figure("crossings", format!("{} low, {} high", crossed[0], crossed[1]));
    lab.fact("a hundred of each", crossed.iter().all(|&crossings| crossings >= TIMES));
    let heard = [told.low_interrupts - heard.low_interrupts, told.high_interrupts - heard.high_interrupts];
    let signalled = |vector: u32| -> u64 {
        let count = |status: &Status| status.interrupts.get(&vector).copied().unwrap_or(0);
        count(&after) - count(&before)
    };
    lab.fact("the driver heard each interrupt", heard == [signalled(12), signalled(13)]);

    lab.step("crossings that follow each other at once: two interrupts that two processors may take in any order");
    for _ in 0..TIMES / 4 {
        for (low, high) in [("95%", "97%"), ("1%", "2%")] {
            lab.device().execute("set-watermarks", json!({ "low": low, "high": high }))?;
        }
        cram.wait(lab, "demotion to resume", |counts| counts.pressure < 1000).with_context(|| told_and_heard(lab, &cram))?;
    }

    lab.step("crossings by data: noise until demotion stops, until eviction has made room");
    lab.device().execute("set-watermarks", json!({ "low": "10%", "high": "20%" }))?;
    let after = lab.device().status()?;
    let noise = memory.map_anywhere(DATA)?;
    memory.fill(noise.all(), &NOISE, LIMIT)?;
    // What the device asks for comes from interrupts alone.
    cram.set(lab, Tunable::OccupancyInterval, 0)?;
    memory.move_pages(noise.all(), &[cram.node], LIMIT)?;
    lab.wait("the device to ask and to let go", |lab| {
        let crossings = lab.device().status()?.crossings;
        Ok(crossings.low > after.crossings.low && crossings.high > after.crossings.high)
    })?;
    let counts = cram.wait(lab, "pressure to be relieved", |counts| counts.pressure < 1000)?;
    let status = lab.device().status()?;
    lab.figure("pages evicted", counts.evicted);
    lab.fact("stores lost", status.overflows);
    let verdict = memory.verify(noise.all(), &NOISE, LIMIT)?;
    lab.fact("pages of noise wrong", verdict.pages_wrong + verdict.pages_poisoned);

    lab.step("pressure by hand: in between it throttles");
    memory.free(noise)?;
    anchor.free(weight)?;
    for pressure in [0, 900, 1000] {
        cram.set(lab, Tunable::Pressure, pressure)?;
        memory.fill(map.all(), &SOFT, LIMIT)?;
        let before = cram.counts(lab)?;
        lab.reclaim(&group, BYTES)?;
        let now = cram.counts(lab)?;
        let free = now.managed_pages - now.used_pages;
        lab.fact(&format!("pressure {pressure}"), json!({
            "pages come": now.demoted > before.demoted, "are refused": now.refused > before.refused,
            "as much is free as is asked": free + SLACK >= now.managed_pages * pressure / 1000,
        }));
    }
    Ok(())
}

/// Moves the watermarks so that the medium crosses them, and waits each time until the kernel has taken it in.
fn crossings(lab: &Lab, cram: &Cram) -> Result<()> {
    for _ in 0..TIMES {
        for (low, high, stopped) in [("95%", "97%", true), ("1%", "2%", false)] {
            lab.device().execute("set-watermarks", json!({ "low": low, "high": high }))?;
            let what = if stopped { "demotion to stop" } else { "demotion to resume" };
            cram.wait(lab, what, |counts| (counts.pressure == 1000) == stopped).with_context(|| told_and_heard(lab, cram))?;
        }
    }
    Ok(())
}

/// What the device said and the driver heard, for an error.
fn told_and_heard(lab: &Lab, cram: &Cram) -> String {
    format!("the device: {:?}; the driver: {:?}", lab.device().status(), cram.driver(lab))
}

/// Writes, cools and reads the same pages, now compressible and now not: how often, and how many were wrong.
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
