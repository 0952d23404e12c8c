//! A second kernel in place of the first: the device is not reset, and the data are still there.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "kexec",
    story: "a kernel started by kexec finds the region that the first one made, and in it the data that the first one left",
    needs: &[Need::Config("KEXEC_FILE"), Need::Config("DEV_DAX"), Need::Config("DEV_DAX_KMEM"), Need::Config("FS_DAX")],
    machine: MachineShape { second_kernel: true, ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 93, ratio: 4.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let region = lab.create_region_on(0)?;
    let path = format!("/dev/{}", region.dax);
    lab.give_dax(&region.dax, "device_dax")?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&path, 128 * MIB)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    drop(memory);
    let held = lab.device().status()?.used;

    lab.step("kexec");
    lab.kexec()?;
    let used = lab.device().status()?.used;
    lab.fact("the device holds what it held", used >= held);

    lab.step("the second kernel");
    let found = lab.found_region(0)?;
    lab.fact("found.region", pick(&found.listing, &["region", "size", "type", "interleave_ways", "decode_state"]));
    lab.fact("found.at the same address", found.base == region.base);
    lab.fact("found.decoders", lab.decoders(0)?);
    lab.give_dax(&found.dax, "device_dax")?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_shared(&format!("/dev/{}", found.dax), 128 * MIB)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("data.pages wrong", verdict.pages_wrong);
    drop(memory);

    lab.step("taken apart and made again");
    lab.give_dax(&found.dax, "kmem")?;
    lab.destroy(&found.name)?;
    let made = lab.create_region_on(0)?;
    lab.fact("made.decode_state", made.listing["decode_state"].clone());
    Ok(())
}
