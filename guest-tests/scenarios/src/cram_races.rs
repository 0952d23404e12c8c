//! A million writes of each kind against pages that are moved to the tier, promoted, and lose their write access.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "cram_races",
    story: "a million writes of each kind (direct I/O, io_uring, pins, vmsplice, other processes, fork) race with revocation: none is lost",
    needs: &[Need::Cram, Need::Selftests("cram"), Need::Config("MEMCG"), Need::Config("CPUSETS")],
    devices: &[DeviceShape { capacity: 256 << 20, physical: 128 << 20, cache: 16 << 20, ..DeviceShape::USUAL }],
    // The disk is for reads with O_DIRECT.
    machine: MachineShape { selftests: true, scratch_mib: Some(16), ..MachineShape::USUAL },
    limit: Duration::from_secs(4 * 60 * 60),
    by_name: true,
    run,
};

const WRITES: u64 = 1_000_000;
const KINDS: &[&str] =
    &["vmsplice", "process_vm_readv", "process_vm_writev", "longterm_pin", "io_uring", "o_direct", "fork"];
/// For one kind.
const LIMIT: Duration = Duration::from_secs(60 * 60);

fn run(lab: &mut Lab) -> Result<()> {
    lab.cram()?;
    for kind in KINDS {
        lab.step(kind);
        lab.selftest(&format!("cram/cram_race -n {WRITES} {kind}"), &[], LIMIT)?;
    }
    Ok(())
}
