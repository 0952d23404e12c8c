//! More is written than the media can take: what does not fit is poisoned, listed and told, and nothing else is touched.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "full",
    story: "writes past the physical size: every lost block is poisoned, listed and evented, all others verify",
    devices: &[DeviceShape { physical: "96M", ..DeviceShape::USUAL }],
    limit: Duration::from_secs(120),
    tell,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const NOISE: Pattern = Pattern::Random { seed: 3 };
const SOFT: Pattern = Pattern::Compressible { seed: 4, ratio: 4.0 };
const RECORD: &[&str] = &["log", "descriptor", "type", "transaction_type"];

fn tell(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut trace = lab.guest.trace("full", &["cxl:cxl_general_media"])?;

    lab.step("160 MiB of noise into 96 MiB of media");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 160 * MIB, LIMIT)?;
    memory.fill(map.all(), &NOISE, LIMIT)?;
    let status = lab.device().status()?;
    lab.fact("media left", status.physical - status.used);
    lab.fact("blocked", status.blocked);
    lab.figure("blocks lost", status.overflows);
    lab.figure("bytes poisoned", format_bytes(status.poisoned));
    ensure!(status.overflows > 0, "nothing was lost");

    lab.step("every page is right or poisoned, never wrong");
    let verdict = memory.verify(map.all(), &NOISE, LIMIT)?;
    let status = lab.device().status()?;
    lab.fact("pages", verdict.pages);
    lab.fact("pages silently wrong", verdict.pages_wrong);
    lab.fact("pages the guest sees poisoned are those the device lists", verdict.pages_poisoned * 4096 == status.poisoned);
    ensure!(verdict.pages_poisoned > 0, "the device lost blocks, and the guest sees no poison");

    lab.step("the guest is told: an event record, the poison list");
    lab.fact("event in the guest's trace", lab.event(&mut trace, "cxl_general_media", RECORD)?);
    let listed = lab.poison_list()?;
    lab.figure("records in the guest's poison list", listed.records);
    lab.fact("bytes in the guest's poison list are those the device lists", listed.bytes == status.poisoned);
    lab.fact("poison sources", listed.sources);

    lab.step("poisoned pages that are written again are whole again, once there is room");
    memory.fill(map.all(), &SOFT, LIMIT)?;
    let verdict = memory.verify(map.all(), &SOFT, LIMIT)?;
    lab.fact("pages wrong or poisoned after that", verdict.pages_wrong + verdict.pages_poisoned);
    lab.fact("poisoned bytes after that", lab.device().status()?.poisoned);
    Ok(())
}
