//! The device fills up as data stops compressing, and reports it; when there is room again, it reports that too.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "watermark",
    story: "noise until the low crossing; overwritten, or freed and zeroed by media operation, until the high crossing",
    needs: &[Need::Config("CXL_MEM_RAW_COMMANDS")],
    devices: &[DeviceShape { physical: 96 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const SOFT: Pattern = Pattern::Compressible { seed: 1, ratio: 4.0 };
const NOISE: Pattern = Pattern::Random { seed: 2 };
/// The fields of a crossing in the kernel's trace: a health status change.
const RECORD: &[&str] = &["log", "event_type", "health_status", "media_status"];

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut trace = lab.guest.trace("watermark", &["cxl"])?;
    let mut memory = lab.guest.memory()?;

    lab.step("128 MiB of compressible data: the device has room");
    let soft = memory.map_on(1, 128 * MIB, LIMIT)?;
    memory.fill(soft.all(), &SOFT, LIMIT)?;
    let status = lab.device().status()?;
    lab.fact("blocked after compressible data", status.blocked);
    lab.figure("used after compressible data", format_bytes(status.used));

    lab.step("data that does not compress, until the low crossing");
    let hard = memory.map_on(1, 96 * MIB, LIMIT)?;
    let written = noise_until_blocked(lab, &mut memory, &hard)?;
    let status = lab.device().status()?;
    lab.figure("noise until the low crossing", format_bytes(written));
    lab.figure("free media then", format_bytes(status.physical - status.used));
    lab.fact("poisoned at the low crossing", status.poisoned);
    lab.fact("low crossing in the guest's trace", lab.event(&mut trace, "cxl_memory_module", RECORD)?);

    lab.step("the noise is overwritten with zeros, until the high crossing");
    memory.fill(hard.pages(0, written / 4096), &Pattern::Zero, LIMIT)?;
    lab.fact("blocked after making room", lab.device().status()?.blocked);
    lab.fact("high crossing in the guest's trace", lab.event(&mut trace, "cxl_memory_module", RECORD)?);

    lab.step("noise again, then freed: media operation Zero tells the device to free its media");
    let written = noise_until_blocked(lab, &mut memory, &hard)?;
    lab.event(&mut trace, "cxl_memory_module", RECORD)?;
    let frames = memory.physical(&hard, 0, written / 4096)?;
    memory.free(hard)?;
    lab.fact("blocked after the guest freed it", lab.device().status()?.blocked);
    zero(lab, &frames)?;
    lab.fact("high crossing after Zero", lab.event(&mut trace, "cxl_memory_module", RECORD)?);
    lab.fact("blocked after Zero", lab.device().status()?.blocked);

    // Two low crossings in the warning log, two high ones in the information log.
    lab.fact("interrupts of vectors 3 and 2", lab.interrupts(&[3, 2])?);

    lab.step("the compressible data is unchanged");
    let verdict = memory.verify(soft.all(), &SOFT, LIMIT)?;
    lab.fact("compressible pages wrong", verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}

/// Fills a mapping with noise from its start until the device blocks; returns the bytes written.
fn noise_until_blocked(lab: &Lab, memory: &mut Memory, hard: &Mapping) -> Result<u64> {
    let mut written = 0;
    while !lab.device().status()?.blocked {
        ensure!(written < hard.bytes, "{} of noise did not fill the media", format_bytes(written));
        memory.fill(hard.pages(written / 4096, MIB / 4096), &NOISE, LIMIT)?;
        written += MIB;
    }
    Ok(written)
}

/// Media operation Zero (class 1, subclass 1) of pages at these guest physical addresses.
fn zero(lab: &Lab, frames: &[Option<u64>]) -> Result<()> {
    let mut dpas = frames.iter().flatten().map(|&frame| lab.dpa(0, frame)).collect::<Result<Vec<_>>>()?;
    dpas.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for dpa in dpas {
        match ranges.last_mut() {
            Some((start, length)) if *start + *length == dpa => *length += 4096,
            _ => ranges.push((dpa, 4096)),
        }
    }
    // As many ranges as fit in the mailbox's payload.
    for ranges in ranges.chunks(100) {
        let code = lab.media_operation([1, 1], ranges)?;
        ensure!(code <= 1, "media operation Zero returned {code:#x}");
    }
    Ok(())
}
