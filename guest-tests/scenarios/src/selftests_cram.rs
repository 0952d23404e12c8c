//! The kernel tree's own selftests of CRAM, on the tier that its driver makes.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "selftests_cram",
    story: "the kernel's selftests of CRAM: a page's life, pressure, a full tier, and races with revocation",
    needs: &[
        Need::Cram,
        Need::Selftests("cram"),
        Need::Config("MEMCG"),
        Need::Config("CPUSETS"),
        Need::Path("/sys/block/zram0"),
        Need::Path("/sys/kernel/mm/numa/demotion_enabled"),
    ],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    // The disk is for reads with O_DIRECT.
    machine: MachineShape { selftests: true, scratch_mib: Some(16), ..MachineShape::USUAL },
    limit: Duration::from_secs(600),
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(300);

fn run(lab: &mut Lab) -> Result<()> {
    lab.cram()?;
    // A device that makes pages exclusive to itself, where the kernel has it.
    lab.sh("modprobe test_hmm || true")?;
    for program in ["cram", "cram_race"] {
        lab.step(program);
        lab.selftest(&format!("cram/{program}"), &[], LIMIT)?;
    }
    Ok(())
}
