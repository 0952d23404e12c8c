//! The device fills up as data stops compressing, and says so; room is made, and it says that too.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "watermark",
    story: "compressible, then incompressible data until the low crossing; freed until the high crossing",
    device: DeviceShape { physical: "96M", ..DeviceShape::DEFAULT },
    machine: MachineShape::DEFAULT,
    limit: Duration::from_secs(120),
    tell,
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 1, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 2 };
/// What a crossing looks like in the kernel's trace: a change of health, told by the device.
const RECORD: &[&str] = &["log", "event_type", "health_status", "media_status"];

fn tell(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut trace = lab.guest.trace("watermark", &["cxl"])?;
    let mut memory = lab.guest.memory()?;

    lab.step("128 MiB that compress: the device has room");
    let soft = memory.map_on(1, 128 * MIB, LIMIT)?;
    memory.fill(soft.all(), &SOFT, LIMIT)?;
    let status = lab.device.status()?;
    lab.fact("blocked after compressible data", status.blocked);
    lab.figure("used after compressible data", format_bytes(status.used));

    lab.step("data that does not compress, until the low crossing");
    let hard = memory.map_on(1, 96 * MIB, LIMIT)?;
    let mut written = 0;
    while !lab.device.status()?.blocked {
        ensure!(written < 96 * MIB, "96 MiB of noise did not fill 96 MiB of media");
        memory.fill(hard.pages(written / 4096, MIB / 4096), &NOISE, LIMIT)?;
        written += MIB;
    }
    let status = lab.device.status()?;
    lab.figure("noise until the low crossing", format_bytes(written));
    lab.figure("free media then", format_bytes(status.physical - status.used));
    lab.fact("poisoned at the low crossing", status.poisoned);
    lab.fact("low crossing in the guest's trace", lab.event(&mut trace, "cxl_memory_module", RECORD)?);

    lab.step("the noise is overwritten with zeros, until the high crossing");
    memory.fill(hard.pages(0, written / 4096), &Pattern::Zero, LIMIT)?;
    lab.fact("blocked after making room", lab.device.status()?.blocked);
    lab.fact("high crossing in the guest's trace", lab.event(&mut trace, "cxl_memory_module", RECORD)?);

    lab.step("nothing of the compressible data was touched");
    let verdict = memory.verify(soft.all(), &SOFT, LIMIT)?;
    lab.fact("compressible pages wrong", verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}
