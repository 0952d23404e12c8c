//! Swap below the tier: cold pages go to the tier, pages that the tier must give up go to swap, and limits count both.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_tiers",
    story: "the order of tiers: DRAM, CRAM, swap (disk, zswap); a cgroup pays for DRAM and CRAM, and its limit sends the rest to swap",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Config("ZSWAP")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    machine: MachineShape { scratch_mib: Some(128), ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const BYTES: u64 = 16 * MIB;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 95, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.swap_on("/dev/vda")?;
    let cram = lab.cram()?;
    cram.set(lab, Tunable::OccupancyInterval, 0)?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    for (below, zswap) in [("disk", "N"), ("zswap", "Y")] {
        lab.sh(&format!("echo {zswap} > /sys/module/zswap/parameters/enabled"))?;
        let group = lab.cgroup(&format!("above-{below}"))?;
        let mut memory = lab.memory_in(&group)?;
        let map = memory.map_anywhere(BYTES)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        lab.step(&format!("{below}: cold pages go to the tier, not to swap"));
        // Reclaim also scans the tier, and would swap even colder pages from there.
        lab.write(&group, "memory.swap.max", "0")?;
        let charged = lab.figure_of(&group, "memory.current")?;
        lab.reclaim(&group, BYTES / 2)?;
        let nodes = memory.nodes(map.all())?;
        let swapped = lab.figure_of(&group, "memory.swap.current")?;
        lab.write(&group, "memory.swap.max", "max")?;
        lab.figure(
            &format!("{below}: first, on the tier and in swap"),
            format!("{} and {}", nodes.on(cram.node), swapped / 4096),
        );
        lab.fact(
            &format!("{below}: half of the memory is reclaimed"),
            json!({
                "it is on the tier": nodes.on(cram.node) > PAGES * 4 / 10,
                    "in swap": swapped,
                    "what is on the tier is charged as before":
                        lab.figure_of(&group, "memory.current")? + MIB > charged,
                    "memory.stat: anon": lab.stat(&group, "anon")? + swapped >= BYTES,
            }),
        );

        lab.step(&format!("{below}: pressure empties the tier to swap"));
        let (there, before) = (nodes.on(cram.node), cram.counts(lab)?.evicted);
        cram.set(lab, Tunable::Pressure, 1000)?;
        let emptied = cram.wait(lab, "the tier to be emptied", |counts| counts.evicted - before >= there * 9 / 10)?;
        let swapped = lab.figure_of(&group, "memory.swap.current")?;
        let zswapped = lab.stat(&group, "zswapped")?;
        lab.figure(
            &format!("{below}: evicted, swapped, in zswap"),
            format!("{} pages, {} pages, {} pages", emptied.evicted - before, swapped / 4096, zswapped / 4096),
        );
        lab.fact(
            &format!("{below}: the tier is emptied"),
            json!({
                "to swap": swapped >= there * 4096 * 9 / 10,
                "by way of zswap": zswapped > 0,
                "it is charged no longer": lab.stat(&group, "anon")? < BYTES,
            }),
        );
        cram.set(lab, Tunable::Pressure, 0)?;
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        lab.fact(&format!("{below}: what comes back from swap"), json!({
            "pages wrong": verdict.pages_wrong, "to ordinary memory": memory.nodes(map.all())?.on(0) > PAGES * 9 / 10,
        }));

        lab.step(&format!("{below}: a limit of half"));
        let limited = lab.cgroup(&format!("limited-{below}"))?;
        lab.write(&limited, "memory.max", &(BYTES / 2).to_string())?;
        let mut tenant = lab.memory_in(&limited)?;
        let map = tenant.map_anywhere(BYTES)?;
        tenant.fill(map.all(), &DATA, LIMIT)?;
        let current = lab.figure_of(&limited, "memory.current")?;
        let swapped = lab.figure_of(&limited, "memory.swap.current")?;
        let verdict = tenant.verify(map.all(), &DATA, LIMIT)?;
        let events = lab.guest.read_text(&format!("/sys/fs/cgroup/limited-{below}/memory.events"))?;
        lab.figure(
            &format!("{below}: limited: charged and swapped"),
            format!("{} and {}", format_bytes(current), format_bytes(swapped)),
        );
        lab.fact(
            &format!("{below}: a limit of half"),
            json!({
                "holds": current <= BYTES / 2, "by swap": swapped >= BYTES / 3,
                "killed": events.lines().find(|line| line.starts_with("oom_kill ")),
                "pages wrong": verdict.pages_wrong,
            }),
        );
    }
    Ok(())
}
