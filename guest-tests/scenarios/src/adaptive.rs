//! Media runs short, and the device makes room itself: it recompresses cold blocks with zstd, and loses nothing.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "adaptive",
    story: "real data leaves too little media free: the device recompresses it until the high crossing, all verifies",
    // What is written takes about 51.7 MiB with lz4 and about 41 MiB with zstd. The low crossing is at 49.2 MiB, the high one at
    // 44.4 MiB, and a guest that is faster than the device recompresses still finds room.
    devices: &[DeviceShape {
        physical: 60 << 20,
        codec: Codec::Adaptive(3),
        more: &["--low-watermark", "18%", "--high-watermark", "26%"],
        ..DeviceShape::USUAL
    }],
    machine: MachineShape { corpus: true, ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

/// Bytes of each half of the corpus.
const HALF: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const RECORD: &[&str] = &["log", "event_type", "health_status"];

fn run(lab: &mut Lab) -> Result<()> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut trace = lab.guest.trace("adaptive", &["cxl:cxl_memory_module"])?;

    lab.step("128 MiB of real data, until the low crossing");
    let mut memory = lab.guest.memory()?;
    let halves = corpus_halves(&mut memory, 1, HALF)?;
    lab.fact("told first", lab.event(&mut trace, "cxl_memory_module", RECORD)?);

    lab.step("while the guest is idle, the device makes room");
    lab.fact("told then", lab.event(&mut trace, "cxl_memory_module", RECORD)?);
    let status = lab.device().status()?;
    lab.fact("blocked", status.blocked);
    lab.fact("poisoned", status.poisoned);
    lab.figure("media taken", format_bytes(status.used));
    lab.figure("recompressed blocks", status.recompressed_blocks);
    lab.figure("room made", format_bytes(status.recompressed_saved));

    lab.step("the data is as it was written");
    let mut verdict = Verdict::default();
    for (data, map) in &halves {
        verdict.add(memory.verify(map.all(), data, LIMIT)?);
    }
    lab.fact("pages", verdict.pages);
    lab.fact("pages wrong or poisoned", verdict.pages_wrong + verdict.pages_poisoned);
    Ok(())
}
