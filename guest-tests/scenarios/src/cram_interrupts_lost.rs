//! The device's interrupts get lost: its state, which the driver reads now and then, tells the same, only later.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_interrupts_lost",
    story: "an interrupt for each watermark gets lost: the driver stops demotion, and resumes it, by what it reads",
    needs: &[Need::Cram],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 32 << 20, cache: 8 << 20, ..DeviceShape::USUAL }],
    limit: Duration::from_secs(90),
    run,
    ..Scenario::USUAL
};

/// Some media are in use, so that watermarks can be put above and below what is free.
const BYTES: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const NOISE: Pattern = Pattern::Random { seed: 91 };
/// Which the driver believes until it has had no other for ten seconds.
const LOW: u16 = 12;
const HIGH: u16 = 13;
const FULL: (f64, f64) = (95.0, 97.0);
const ROOM: (f64, f64) = (1.0, 2.0);

fn run(lab: &mut Lab) -> Result<()> {
    let cram = lab.cram()?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_anywhere(BYTES)?;
    memory.fill(map.all(), &NOISE, LIMIT)?;
    memory.move_pages(map.all(), &[cram.node], LIMIT)?;

    for (name, lost) in [("low", LOW), ("high", HIGH)] {
        lab.step(&format!("the interrupt of the {name} watermark gets lost"));
        let before = cram.driver(lab)?;
        lab.device().execute(control::LoseInterrupt { vector: lost, count: 1 })?;
        lab.device().set_watermarks(FULL.0, FULL.1)?;
        cram.wait(lab, "demotion to stop", |counts| counts.pressure == 1000)?;
        lab.device().set_watermarks(ROOM.0, ROOM.1)?;
        cram.wait(lab, "demotion to resume", |counts| counts.pressure == 0)?;
        let after = cram.driver(lab)?;
        let left = lab.device().execute(control::LoseInterrupt { vector: lost, count: 0 })?;
        lab.fact(
            &format!("the {name} one is lost"),
            json!({
                "low interrupts": after.low_interrupts - before.low_interrupts,
                "high interrupts": after.high_interrupts - before.high_interrupts,
                "still to be lost": left.left_before,
            }),
        );
    }
    lab.fact("pages wrong", memory.verify(map.all(), &NOISE, LIMIT)?.pages_wrong);
    Ok(())
}
