//! The bear: what a plain node of compressed memory does to its guest when the data stops compressing. Overwriting allocates
//! nothing, so nothing can be refused. The device's warning goes unheard, and stores are lost. Each one is accounted for.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "bear",
    story: "data on a plain node turns incompressible, the warning goes unheard, stores are lost: each one poisoned, listed, told",
    devices: &[DeviceShape { physical: 40 << 20, ..DeviceShape::USUAL }],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 4, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 3 };
const WARNING: &[&str] = &["log", "event_type", "health_status"];
const LOSS: &[&str] = &["log", "descriptor", "type", "transaction_type"];
/// The vendor's watermark vectors, which no driver of this kernel requests.
const WATERMARKS: &[u16] = &[12, 13];

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut warnings = lab.guest.trace("warnings", &["cxl:cxl_memory_module"])?;
    let mut losses = lab.guest.trace("losses", &["cxl:cxl_general_media"])?;
    let device_events = lab.device().collect_events()?;

    lab.step("80 MiB of compressible data fit on 40 MiB of media");
    let (mut bystander, mut bear) = (lab.guest.memory()?, lab.guest.memory()?);
    let beside = bystander.map_on(1, 16 * MIB, LIMIT)?;
    bystander.fill(beside.all(), &SOFT, LIMIT)?;
    let map = bear.map_on(1, 64 * MIB, LIMIT)?;
    bear.fill(map.all(), &SOFT, LIMIT)?;
    let status = lab.device().status()?;
    lab.figure("media taken by 80 MiB", format_bytes(status.used));
    lab.fact("blocked before", status.blocked);
    lab.fact("poisoned before", status.poisoned);

    lab.step("noise overwrites the same pages: the kernel gets a warning, and goes on");
    bear.fill(map.all(), &NOISE, LIMIT)?;
    let status = lab.device().status()?;
    lab.fact("warning in the guest's trace", lab.event(&mut warnings, "cxl_memory_module", WARNING)?);
    lab.fact("interrupts on the watermark vectors", lab.interrupts(WATERMARKS)?);
    lab.fact("blocked", status.blocked);
    lab.fact("media left", status.physical - status.used);
    let free = lab.sh("awk '/MemFree/ {print $4}' /sys/devices/system/node/node1/meminfo")?.trim().parse::<u64>()?;
    lab.fact("the kernel still believes in free memory there", free > 256 << 10);
    lab.figure("stores lost", status.overflows);
    lab.figure("bytes lost", format_bytes(status.poisoned));
    ensure!(status.overflows > 0, "nothing was lost");

    lab.step("guest, poison list and events agree on what was lost");
    let verdict = bear.verify(map.all(), &NOISE, LIMIT)?;
    let lost = lab.device().status()?.poisoned;
    lab.fact("pages", verdict.pages);
    lab.fact("pages silently wrong", verdict.pages_wrong);
    ensure!(verdict.pages_poisoned > 0, "the device lost blocks, and the guest sees no poison");
    lab.fact("the guest finds as many bytes poisoned as the device counts", verdict.lines_poisoned * 64 == lost);
    lab.fact("the device's poison list has as many", lab.device().poison_listed()? == lost);
    // Linux reads 1024 records at most.
    let listed = lab.poison_list()?;
    lab.figure("records in the guest's poison list", listed.records);
    lab.fact("the guest's has them all, or says that it overflowed", listed.bytes == lost || listed.overflowed);
    lab.fact("poison sources", listed.sources);
    lab.fact("the first loss in the guest's trace", lab.event(&mut losses, "cxl_general_media", LOSS)?);
    let overflows = lab.device().status()?.overflows;
    let blocks = device_events.finish()?.into_iter().map(|event| match event {
        control::Event::Overflow { blocks, .. } => blocks,
        _ => 0,
    });
    lab.fact("the control socket told of each", blocks.sum::<u64>() == overflows);

    lab.step("other processes lost nothing");
    let verdict = bystander.verify(beside.all(), &SOFT, LIMIT)?;
    lab.fact("pages of the other process wrong or poisoned", verdict.pages_wrong + verdict.pages_poisoned);

    lab.step("compressible data overwrites everything: there is room again, but stores before that are still lost");
    bear.fill(map.all(), &SOFT, LIMIT)?;
    let status = lab.device().status()?;
    lab.figure("bytes lost still", format_bytes(status.poisoned));
    lab.fact("media for the whole of it", status.physical - status.used > 16 * MIB);

    lab.step("pages written once more are whole again");
    bear.fill(map.all(), &SOFT, LIMIT)?;
    let verdict = bear.verify(map.all(), &SOFT, LIMIT)?;
    lab.fact("pages wrong or poisoned after that", verdict.pages_wrong + verdict.pages_poisoned);
    lab.fact("poisoned bytes after that", lab.device().status()?.poisoned);
    Ok(())
}
