//! Cold memory of a cgroup goes to the compressed tier: the kernel's counts, the device's and the program's agree.

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::protocol::ON_DEMAND_DIR;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_demote",
    story: "the driver makes a tier of the device; a cgroup's cold memory goes there, takes little media, is read in place",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Path("/sys/kernel/mm/numa/demotion_enabled")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 48 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 81, ratio: 3.0 };
/// Pages by which the kernel's count of used pages may be off.
const SLACK: u64 = 512;
const NODES: &str = "/sys/devices/system/node";

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the device's capability names its module, as udev would look it up");
    let alias = lab.cram_modalias(0)?;
    let found = lab.sh(&format!(
        "m={alias}; echo $m; \
         for k in {ON_DEMAND_DIR}/*.ko; do tr '\\0' '\\n' < $k | sed -n s/^alias=//p | \
         while read a; do case $m in $a) basename $k;; esac; done; done"
    ))?;
    // None: the PCI id is that of other emulated devices too, so the driver is loaded on request.
    lab.fact("alias, and modules that have it", found.lines().collect::<Vec<_>>());

    lab.step("the driver makes a tier from the device");
    let cram = lab.cram()?;
    lab.fact("nodes with private memory", lab.guest.read_text(&format!("{NODES}/has_memory_private"))?);
    lab.fact("nodes with memory for everybody", lab.guest.read_text(&format!("{NODES}/has_memory"))?);
    let counts = cram.counts(lab)?;
    lab.fact("pages of the tier", counts.managed_pages);
    lab.fact("hardly a page is used before", counts.used_pages < SLACK);
    lab.fact("pressure before", counts.pressure);

    lab.step("a cgroup's memory becomes cold");
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    let group = lab.cgroup("cold")?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let (used, free, demoted) = (lab.device().status()?.used, lab.free_bytes(0)?, lab.vmstat("pgdemote_")?);
    // The write fails with EAGAIN if less could be demoted than was asked for.
    for _ in 0..4 {
        lab.reclaim(&group, BYTES)?;
    }
    let moved = memory.nodes(map.all())?.on(cram.node);
    let counts = cram.settled(lab)?;
    lab.figure("pages demoted", counts.demoted);
    lab.fact("nine pages in ten are on the tier", moved > PAGES * 9 / 10);
    lab.fact("CRAM has counted each of them", counts.demoted >= moved);
    lab.fact("vmstat has counted as many as CRAM", lab.vmstat("pgdemote_")? - demoted == counts.demoted);
    lab.fact("what came and did not go is used", counts.used_pages.abs_diff(counts.demoted - counts.freed) < SLACK);
    lab.fact("moved by users, promoted, refused", [counts.moved_in, counts.promoted, counts.refused]);

    lab.step("where it is, and which cgroup is charged");
    let taken = lab.device().status()?.used - used;
    lab.figure("media taken", format_bytes(taken));
    lab.fact("the device holds them, compressed", (moved * 4096 / 4..moved * 4096 / 2).contains(&taken));
    let freed = lab.free_bytes(0)?.saturating_sub(free);
    lab.figure("ordinary memory freed", format_bytes(freed));
    lab.fact("nine tenths of them are free in ordinary memory", freed > moved * 4096 * 9 / 10);
    lab.fact("they are still the cgroup's", lab.stat(&group, "anon")? >= BYTES);
    let there = lab.numa_stat(&group, "anon", cram.node)?;
    lab.fact("the cgroup's memory on the tier is what the program has there", there >= moved * 4096);

    lab.step("read");
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("pages wrong", verdict.pages_wrong + verdict.pages_poisoned);
    lab.fact("pages that left by being read", moved - memory.nodes(map.all())?.on(cram.node));
    lab.fact("write faults", cram.counts(lab)?.write_faults - counts.write_faults);
    Ok(())
}
