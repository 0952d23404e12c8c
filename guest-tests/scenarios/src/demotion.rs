//! Reclaim demotes cold pages of a memory cgroup to the device, and they come back when they are used.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "demotion",
    story: "memory.reclaim and memory.high demote a cgroup's pages to the node, NUMA balancing promotes them, none changes",
    needs: &[Need::Config("MEMCG"), Need::Config("NUMA_BALANCING"), Need::Path("/sys/kernel/mm/numa/demotion_enabled")],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 48 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 31, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("cold")?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.fact("pages by node", memory.nodes(map.all())?.nodes);

    lab.step("memory.reclaim: there is no swap, so reclaim is demotion");
    let (used, demoted) = (lab.device().status()?.used, lab.vmstat("pgdemote_")?);
    // The write fails with EAGAIN if less could be demoted than was asked for.
    for _ in 0..4 {
        lab.reclaim(&group, BYTES)?;
    }
    let moved = memory.nodes(map.all())?.on(1);
    lab.figure("pages demoted by memory.reclaim", moved);
    lab.fact("memory.reclaim demotes nine pages in ten", moved > PAGES * 9 / 10);
    lab.fact("vmstat counts each of them", lab.vmstat("pgdemote_")? - demoted >= moved);
    let taken = lab.device().status()?.used - used;
    lab.figure("media taken", format_bytes(taken));
    lab.fact("the device holds them, compressed", (moved * 4096 / 4..moved * 4096 / 2).contains(&taken));
    lab.fact("they are still the cgroup's", lab.stat(&group, "anon")? >= BYTES);
    verified(lab, &mut memory, &map, "after demotion")?;

    lab.step("NUMA balancing promotes pages in use");
    let promoted = lab.vmstat("pgpromote_success")?;
    lab.numa_balancing(2)?;
    // The scanner runs by the guest's clock.
    let end = Instant::now() + LIMIT;
    while memory.nodes(map.all())?.on(0) <= PAGES / 2 && Instant::now() < end {
        memory.touch(map.all(), false, 10, LIMIT)?;
    }
    lab.numa_balancing(0)?;
    lab.figure("pages promoted", lab.vmstat("pgpromote_success")? - promoted);
    lab.fact("half of the pages are back", memory.nodes(map.all())?.on(0) > PAGES / 2);
    verified(lab, &mut memory, &map, "after promotion")?;

    lab.step("memory.high: a limit below the present use demotes pages, which stay charged to the cgroup");
    memory.migrate(&[1], &[0], LIMIT)?;
    lab.write(&group, "memory.high", "8M")?;
    let moved = memory.nodes(map.all())?.on(1);
    lab.figure("pages demoted by memory.high", moved);
    lab.fact("memory.high demotes nine pages in ten", moved > PAGES * 9 / 10);
    lab.fact("demotion does not bring it below the limit", lab.stat(&group, "anon")? >= BYTES);
    lab.write(&group, "memory.high", "max")?;
    verified(lab, &mut memory, &map, "at the end")
}

/// Records that every page is as it was filled.
fn verified(lab: &mut Lab, memory: &mut Memory, map: &Mapping, when: &str) -> Result<()> {
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact(&format!("pages wrong or poisoned {when}"), verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}
