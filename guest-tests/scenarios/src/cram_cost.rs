//! The cost of putting cold pages away and getting them back: CRAM beside zswap and zram, in one guest.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_cost",
    story: "16 MiB put away and fetched by CRAM, zram and zswap: pages a second and latencies, as a report",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Config("ZSWAP"), Need::Path("/sys/block/zram0")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 4 << 20, ..DeviceShape::USUAL }],
    machine: MachineShape { scratch_mib: Some(64), ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 16 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 96, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let demotion = "/sys/kernel/mm/numa/demotion_enabled";
    let cram = lab.cram()?;
    lab.sh(&format!("echo 1 > {demotion}"))?;
    measured(lab, "CRAM")?;
    lab.fact("CRAM was used", cram.counts(lab)?.demoted > PAGES);

    lab.sh(&format!("echo 0 > {demotion}"))?;
    lab.swap_on_zram(64)?;
    let swapped = lab.vmstat("pswpout")?;
    measured(lab, "zram")?;
    lab.fact("zram was used", lab.vmstat("pswpout")? - swapped > PAGES);
    lab.sh("swapoff /dev/zram0")?;

    lab.sh("echo lz4 > /sys/module/zswap/parameters/compressor; echo Y > /sys/module/zswap/parameters/enabled")?;
    lab.swap_on("/dev/vda")?;
    let swapped = lab.vmstat("zswpout")?;
    measured(lab, "zswap")?;
    lab.fact("zswap was used", lab.vmstat("zswpout")? - swapped > PAGES);
    Ok(())
}

/// Puts pages away and reads them, then puts them away again and writes them.
fn measured(lab: &mut Lab, by: &str) -> Result<()> {
    let group = lab.cgroup(&format!("cost-{by}"))?;
    let mut memory = lab.memory_in(&group)?;
    let map = memory.map_anywhere(BYTES)?;
    let mut wrong = 0;
    for (access, write) in [("read", false), ("written", true)] {
        lab.step(&format!("{by}: put away, then {access}"));
        memory.fill(map.all(), &DATA, LIMIT)?;
        // With one processor only the guest's clock is reliable, so time the reclaim there.
        let took =
            lab.guest.run(&["sh", "-c", &format!("echo {BYTES} > /sys/fs/cgroup/cost-{by}/memory.reclaim")], LIMIT)?;
        let away = PAGES - memory.nodes(map.all())?.on(0);
        let seconds = took.elapsed_ms.max(1) as f64 / 1000.0;
        lab.figure(&format!("{by}: pages put away, a second"), format!("{away}, {:.0}", away as f64 / seconds));
        let latency = memory.latency(map.all(), write, LIMIT)?;
        let micro = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let a_second = PAGES as f64 / (latency.whole as f64 / 1e9);
        lab.figure(
            &format!("{by}: {access}, pages a second; µs: median, p90, p99, most"),
            format!(
                "{a_second:.0}; {:.0}, {:.0}, {:.0}, {:.0}",
                micro(latency.median),
                micro(latency.p90),
                micro(latency.p99),
                micro(latency.most)
            ),
        );
        let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
        wrong += verdict.pages_wrong + verdict.pages_poisoned;
        lab.fact(&format!("{by}: most pages were put away before they were {access}"), away > PAGES / 2);
    }
    lab.fact(&format!("{by}: pages wrong"), wrong);
    Ok(())
}
