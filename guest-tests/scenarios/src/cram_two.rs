//! Two devices, two tiers: a request of one device does not affect the other's tier.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_two",
    story: "two devices are two tiers: when one asks for room, cold memory goes to the other, and what is on that stays",
    needs: &[Need::Cram, Need::Config("MEMCG"), Need::Path("/sys/kernel/mm/numa/demotion_enabled")],
    // The larger window is the lower one.
    devices: &[
        DeviceShape { capacity: 512 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL },
        DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL },
    ],
    run,
    ..Scenario::USUAL
};

const BYTES: u64 = 16 << 20;
const PAGES: u64 = BYTES / 4096;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 85, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a tier of each device");
    // A host bridge accepts regions only in the order of their addresses: the lower window first, whichever device Linux
    // found first.
    let tiers = lab.crams(&[0, 1])?;
    lab.sh("echo 1 > /sys/kernel/mm/numa/demotion_enabled")?;
    lab.fact("nodes", tiers.iter().map(|tier| tier.node).collect::<Vec<_>>());
    let mut pages = Vec::new();
    for tier in &tiers {
        pages.push(tier.counts(lab)?.managed_pages);
    }
    lab.fact("pages of each", pages);

    for (asks, other) in [(0, 1), (1, 0)] {
        lab.step(&format!("the device of tier {asks} asks for room while memory becomes cold"));
        let group = lab.cgroup(&format!("cold{asks}"))?;
        let mut memory = lab.memory_in(&group)?;
        let map = memory.map_anywhere(BYTES)?;
        memory.fill(map.all(), &DATA, LIMIT)?;
        // Memory freed in earlier steps takes no media any more.
        for tier in &tiers {
            tier.settled(lab)?;
        }
        let (used, counts) = (used(lab)?, tiers[asks].counts(lab)?);
        lab.devices[asks].execute(control::InjectLowWatermark {})?;
        tiers[asks].wait(lab, "it to be heard", |now| now.pressure == 1000)?;
        for _ in 0..4 {
            lab.reclaim(&group, BYTES)?;
        }
        let now = tiers[asks].counts(lab)?;
        let there = memory.nodes(map.all())?.on(tiers[other].node);
        let taken = self::used(lab)?;
        lab.figure(&format!("tier {asks} asks: pages on the other"), there);
        lab.fact(
            &format!("tier {asks} asks"),
            json!({
                "its pressure, and the other's": [now.pressure, tiers[other].counts(lab)?.pressure],
                "pages that come to it": now.demoted - counts.demoted,
                "nine pages in ten go to the other": there > PAGES * 9 / 10,
                "media it takes more": taken[asks].saturating_sub(used[asks]),
                "the other's media hold them": taken[other] - used[other] > there * 4096 / 4,
                "pages wrong": memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong,
            }),
        );
        lab.devices[asks].execute(control::InjectHighWatermark {})?;
        tiers[asks].wait(lab, "it to have room", |now| now.pressure < 1000)?;
    }
    Ok(())
}

/// Media that each device uses.
fn used(lab: &Lab) -> Result<Vec<u64>> {
    lab.devices.iter().map(|device| Ok(device.status()?.used)).collect()
}
