//! Decoders that the firmware has locked: what Linux tries, and what stays.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "precommitted_locked",
    story: "the firmware has locked the decoders: whatever Linux takes apart, the device keeps decoding, until it is reset",
    needs: &[Need::Config("DEV_DAX_KMEM"), Need::Config("CXL_MEM_RAW_COMMANDS")],
    machine: MachineShape { decoders: Decoders::Locked, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 92, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.found_region(0)?;
    for (what, port) in [("host bridge", "switch"), ("endpoint", "endpoint")] {
        let decoders = lab.cxl(&format!("list -D -d {port}"))?;
        let name = decoders[0]["decoder"].as_str().context("no decoder is committed")?;
        let locked = lab.guest.read_text(&format!("/sys/bus/cxl/devices/{name}/locked"))?;
        lab.fact(&format!("found.{what}.locked"), locked.trim());
    }
    state(lab, "found")?;
    lab.online_node(region.node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.fact("found.pages wrong", memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong);
    drop(memory);
    lab.offline_node(region.node)?;

    lab.step("Linux takes the region apart");
    let taken = lab
        .guest
        .run(&["sh", "-c", &format!("cxl disable-region {0} && cxl destroy-region {0}", region.name)], LIMIT)?;
    lab.fact("destroyed.exit", format!("{:?}", taken.exit));
    lab.fact("destroyed.messages", taken.stderr.text().trim().lines().collect::<Vec<_>>());
    state(lab, "destroyed")?;

    lab.step("a conventional reset unlocks");
    let function = format!("/sys/bus/pci/devices/{}", lab.function(0)?);
    lab.sh(&format!("cd {function} && echo cxl_bus > reset_method && echo 1 > reset"))?;
    state(lab, "after bus reset")
}

/// What the device says of its first decoder.
fn state(lab: &mut Lab, when: &str) -> Result<()> {
    let control = lab.decoder_control(0)?;
    let bit = |bit: u32| control >> bit & 1 == 1;
    lab.fact(&format!("{when}.decoder 0 of the device"), json!({ "committed": bit(10), "locked": bit(8) }));
    Ok(())
}
