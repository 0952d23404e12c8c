//! The bear, twice: memory turns incompressible on a plain node, which loses it, and on a tier that CRAM guards.

use std::collections::BTreeSet;

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_bear",
    story: "cold data turns incompressible: a plain node loses it; CRAM stops at the low watermark, swaps, loses nothing, resumes",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Path("/sys/kernel/mm/numa/demotion_enabled")],
    // The low watermark is above what may be in flight: the window's dirty lines, whose compressed size is still unknown, and
    // the pages demoted before the kernel reacts, which takes a tenth of a second on a busy host.
    devices: &[DeviceShape {
        capacity: 256 << 20,
        physical: 40 << 20,
        cache: 4 << 20,
        more: &["--low-watermark", "40%", "--high-watermark", "50%", "--flush-interval", "50"],
        ..DeviceShape::USUAL
    }],
    machine: MachineShape { scratch_mib: Some(256), ..MachineShape::USUAL },
    limit: Duration::from_secs(180),
    run,
    ..Scenario::USUAL
};

/// The two acts, which also prefix their facts and figures.
const WITHOUT: &str = "without CRAM";
const WITH: &str = "with CRAM";

const BYTES: u64 = 64 << 20;
const PAGES: u64 = BYTES / 4096;
const LATER: u64 = 16 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 87, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 88 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    lab.swap_on("/dev/vda")?;

    lab.act(WITHOUT);
    lab.step("the device's memory is a plain node");
    let region = lab.create_region_on(0)?;
    lab.online_node(region.node)?;
    let seen = workload(lab, WITHOUT, region.node, &mut |_| Ok(()))?;
    lab.fact(WITHOUT, seen);
    lab.step("the node is removed, the device wiped");
    lab.offline_node(region.node)?;
    lab.destroy(&region.name)?;
    lab.sanitize(0)?;
    let status = lab.device().status()?;
    ensure!(status.used == 0 && status.poisoned == 0 && !status.blocked, "the device is not empty: {status:?}");

    lab.act(WITH);
    lab.step("the device's memory is a tier");
    let cram = lab.cram()?;
    let mut resumed = Value::Null;
    let seen = workload(lab, WITH, cram.node, &mut |lab| {
        let counts = cram.wait(lab, "pressure to be relieved", |counts| counts.pressure < 1000)?;
        let driver = cram.driver(lab)?;
        lab.figure(&format!("{WITH}: pages refused"), counts.refused);
        lab.figure(&format!("{WITH}: pages promoted by writes"), counts.promoted + counts.copied);
        lab.figure(&format!("{WITH}: pages evicted from the tier"), counts.evicted);
        resumed = json!({
            "low crossings were heard": driver.low_interrupts > 0,
            "high crossings were heard": driver.high_interrupts > 0,
            "demotion was refused": counts.refused > 0,
            "written pages were promoted": counts.promoted + counts.copied >= PAGES * 8 / 10,
        });
        Ok(())
    })?;
    lab.fact(WITH, seen);
    lab.fact("what CRAM did", resumed);
    Ok(())
}

/// The workload of both acts: compressible data becomes cold; noise overwrites it; it becomes cold again; it is read; it is
/// freed, and another program's data becomes cold.
fn workload(lab: &mut Lab, name: &str, node: u32, calm: &mut dyn FnMut(&mut Lab) -> Result<()>) -> Result<Value> {
    let begin = lab.device().status()?;
    let group = lab.cgroup(&name.replace(' ', "-"))?;

    lab.step("64 MiB of compressible data become cold");
    lab.write(&group, "memory.swap.max", "0")?;
    let mut bear = lab.memory_in(&group)?;
    let map = bear.map_anywhere(BYTES)?;
    bear.fill(map.all(), &SOFT, LIMIT)?;
    lab.reclaim(&group, BYTES)?;
    let there = bear.nodes(map.all())?.on(node);
    lab.figure(&format!("{name}: pages on the node while they compress"), there);
    let fits = lab.device().status()?.overflows == begin.overflows;

    lab.step("noise overwrites all of it");
    bear.fill(map.all(), &NOISE, LIMIT)?;
    let (found, listed) = poison_there(lab, &mut bear, &map)?;
    lab.figure(&format!("{name}: lines lost where they were written"), listed);
    lab.step("the noise becomes cold");
    lab.write(&group, "memory.swap.max", "max")?;
    for _ in 0..4 {
        lab.reclaim(&group, BYTES / 4)?;
    }
    calm(lab)?;
    let after = lab.device().status()?;
    let lost = after.overflows - begin.overflows;
    lab.figure(&format!("{name}: stores lost"), lost);
    lab.figure(&format!("{name}: swapped"), format_bytes(lab.figure_of(&group, "memory.swap.current")?));

    lab.step("all of it is read");
    let verdict = bear.verify(map.all(), &NOISE, LIMIT)?;
    lab.figure(&format!("{name}: pages lost"), verdict.pages_poisoned);

    lab.step("it is freed, and another program's data becomes cold");
    bear.free(map)?;
    let mut next = lab.memory_in(&group)?;
    let map = next.map_anywhere(LATER)?;
    next.fill(map.all(), &SOFT, LIMIT)?;
    lab.write(&group, "memory.swap.max", "0")?;
    lab.reclaim(&group, LATER)?;
    let resumed = next.nodes(map.all())?.on(node);
    let other = next.verify(map.all(), &SOFT, LIMIT)?;
    lab.figure(&format!("{name}: pages of the next on the node, lost"), format!("{resumed}, {}", other.pages_poisoned));
    Ok(json!({
        "half of the cold data are on the node": there > PAGES / 2,
        "all fits while it compresses": fits,
        "stores were lost where the noise was written": listed > 0,
        "the guest finds lost there what the device lists there": found == listed,
        "low crossings": after.crossings.low > begin.crossings.low,
        "stores were lost": lost > 0,
        "the program finds pages lost": verdict.pages_poisoned > 0,
        "pages silently wrong": verdict.pages_wrong,
        "cold data come to the node afterwards": resumed > LATER / 4096 / 2,
        "pages of the next silently wrong": other.pages_wrong,
        // Where stores are lost, the next program's may be lost too.
        "pages of the next lost": if lost > 0 { Value::from("any") } else { other.pages_poisoned.into() },
    }))
}

/// Poisoned lines in a mapping's pages on the device: how many the guest finds, and how many the device lists.
fn poison_there(lab: &Lab, memory: &mut Memory, map: &Mapping) -> Result<(u64, u64)> {
    // Dirty lines of the window are lost only when they are written back.
    lab.device().status()?;
    let frames = memory.physical(map, 0, map.page_count())?;
    let places: Vec<_> = frames.into_iter().map(|frame| lab.dpa(0, frame?).ok()).collect();
    let (mut first, mut found) = (0, 0);
    for run in places.chunk_by(|one, next| one.is_some() == next.is_some()) {
        let pages = run.len() as u64;
        if run[0].is_some() {
            found += memory.verify(map.pages(first, pages), &NOISE, LIMIT)?.lines_poisoned;
        }
        first += pages;
    }
    let there: BTreeSet<u64> = places.into_iter().flatten().collect();
    let list = lab.device().poison_list()?;
    let lines = list.iter().flat_map(|run| (run.start..run.start + run.length).step_by(64));
    Ok((found, lines.filter(|line| there.contains(&(line - line % 4096))).count() as u64))
}
