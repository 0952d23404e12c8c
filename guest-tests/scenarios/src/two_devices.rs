//! Two devices, each with its window: their data, counters and events are separate.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "two_devices",
    story: "two windows, two nodes: data on both, one filled until its low crossing, and the other not touched by it",
    needs: &[Need::Config("DEV_DAX_KMEM")],
    devices: &[
        DeviceShape::USUAL,
        DeviceShape {
            capacity: 256 << 20,
            physical: 64 << 20,
            cache: 32 << 20,
            codec: Codec::Zstd(1),
            more: &["--serial", "0x2222"],
        },
    ],
    limit: Duration::from_secs(90),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const PATTERNS: [Pattern; 2] =
    [Pattern::Compressible { seed: 61, ratio: 3.0 }, Pattern::Compressible { seed: 62, ratio: 4.0 }];
const NOISE: Pattern = Pattern::Random { seed: 63 };
/// The vector of the warning log.
const WARNING: &[u16] = &[3];

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a region on each");
    let mut regions = Vec::new();
    for device in [0, 1] {
        let region = lab.create_region_on(device)?;
        let listing = lab.cxl(&format!("list -M -m {}", lab.memdev(device)?))?;
        lab.fact(&format!("device {device}.memdev"), pick(&listing, &["ram_size", "serial"]));
        lab.fact(&format!("device {device}.region"), pick(&region.listing, &["resource", "size", "decode_state"]));
        lab.fact(&format!("device {device}.node"), region.node);
        lab.online_node(region.node)?;
        regions.push(region);
    }

    lab.step("data on each");
    let mut memory = lab.guest.memory()?;
    let mut maps = Vec::new();
    for (region, pattern) in regions.iter().zip(&PATTERNS) {
        let map = memory.map_on(region.node, 48 * MIB, LIMIT)?;
        memory.fill(map.all(), pattern, LIMIT)?;
        maps.push(map);
    }
    for device in [0, 1] {
        let frames = memory.physical(&maps[device], 0, maps[device].page_count())?;
        let held: Vec<_> = regions.iter().map(|region| region.holds(&frames)).collect();
        lab.fact(&format!("device {device}.pages of its data in each window"), held);
        let status = lab.devices[device].status()?;
        lab.figure(&format!("device {device} uses"), format_bytes(status.used));
    }

    lab.step("the second device is filled until its low crossing");
    let before = lab.devices[0].status()?.used;
    let noise = memory.map_on(regions[1].node, 96 * MIB, LIMIT)?;
    let mut written = 0;
    while !lab.devices[1].status()?.blocked {
        ensure!(written < noise.bytes, "{} of noise did not fill the media", format_bytes(written));
        memory.fill(noise.pages(written / 4096, MIB / 4096), &NOISE, LIMIT)?;
        written += MIB;
    }
    lab.wait("the interrupt of the crossing", |lab| Ok(lab.interrupts_on(1, WARNING)? == [1]))?;
    lab.fact("interrupts of the other device", lab.interrupts_on(0, WARNING)?);
    lab.fact("the other device is blocked", lab.devices[0].status()?.blocked);
    lab.fact("the other device uses more by", lab.devices[0].status()?.used - before);

    lab.step("the data on both is unchanged");
    for device in [0, 1] {
        let verdict = memory.verify(maps[device].all(), &PATTERNS[device], LIMIT)?;
        lab.fact(&format!("device {device}.pages wrong"), verdict.pages_wrong + verdict.pages_poisoned);
    }
    Ok(())
}
