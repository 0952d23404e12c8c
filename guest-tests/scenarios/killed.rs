//! QEMU is killed, then the device: nobody hangs, nothing is left behind, and each death is told.

use std::fs;

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "killed",
    story: "QEMU killed, the device serves the next one afresh; the device killed, no hang and no mount is left",
    limit: Duration::from_secs(120),
    tell,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 5, ratio: 2.0 };

fn tell(lab: &mut Lab) -> Result<()> {
    lab.step("128 MiB on the node");
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 128 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;

    lab.step("QEMU is killed: the harness is told at once, the device stays");
    lab.kill_qemu()?;
    let told = memory.verify(map.all(), &DATA, LIMIT).map(drop);
    lab.fact("the guest's program is said to be gone", told.is_err());
    drop(memory);
    lab.wait("the device to see that QEMU is gone", |lab| Ok(!lab.device().status()?.client_connected))?;
    lab.fact("what the guest left can be looked at", lab.device().status()?.used > 32 * MIB);

    lab.step("the next QEMU finds a device just switched on");
    lab.boot_again()?;
    let status = lab.device().status()?;
    lab.fact("used by the new guest", status.used);
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 128 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.fact("pages wrong in the new guest", memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong);

    lab.step("the device is killed: the guest's next touch of a cold page ends QEMU, and nobody hangs");
    let pid = lab.device().pid();
    lab.devices[0].kill()?;
    let told = memory.verify(map.all(), &DATA, LIMIT).map(drop);
    lab.fact("a guest that touches lost memory is stopped", told.is_err());
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("no mount table")?;
    let left = mounts.lines().filter(|line| line.contains(&format!("cxl-cram-window-{pid}-"))).count();
    lab.fact("mounts left", left);
    Ok(())
}
