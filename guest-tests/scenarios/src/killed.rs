//! QEMU is killed, then the device: nothing hangs, nothing is left behind, and each death is reported.

use std::fs;

use cxl_cram_lab::prelude::*;
use cxl_cram_lab::wire::memory::{Order, Task};

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "killed",
    story: "QEMU killed while the guest writes, the device serves the next afresh; the device killed: no hang, no mount left",
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 5, ratio: 2.0 };

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("QEMU is killed in the middle of writing: the harness notices at once, the device stays");
    let (mut memory, map) = guest_with_data(lab)?;
    keep_writing(lab, &memory, &map)?;
    lab.kill_qemu()?;
    let result = memory.verify(map.all(), &DATA, LIMIT).map(drop);
    lab.fact("the guest's program is said to be gone", result.is_err());
    drop(memory);
    lab.wait("the device to see that QEMU is gone", |lab| Ok(!lab.device().status()?.client_connected))?;
    lab.fact("what the guest left can be looked at", lab.device().status()?.used > 32 * MIB);

    lab.step("the next QEMU finds a device in its power-on state");
    lab.boot_again()?;
    lab.fact("used by the new guest", lab.device().status()?.used);
    let (mut memory, map) = guest_with_data(lab)?;
    lab.fact("pages wrong in the new guest", memory.verify(map.all(), &DATA, LIMIT)?.pages_wrong);

    lab.step(
        "the device is killed in the middle of it: the guest's next touch of a cold page ends QEMU, and nothing hangs",
    );
    keep_writing(lab, &memory, &map)?;
    let pid = lab.device().pid();
    lab.devices[0].kill()?;
    let result = memory.verify(map.all(), &DATA, LIMIT).map(drop);
    lab.fact("a guest that touches lost memory is stopped", result.is_err());
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("no mount table")?;
    let left = mounts.lines().filter(|line| line.contains(&format!("cxl-cram-window-{pid}-"))).count();
    lab.fact("mounts left", left);
    Ok(())
}

/// A program with 96 MiB on the device's node.
fn guest_with_data(lab: &Lab) -> Result<(Memory, Mapping)> {
    lab.create_region()?;
    lab.online_node(1)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 96 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    Ok((memory, map))
}

/// Makes the program store to every page over and over, more than the device's cache holds, and returns once the device is
/// evicting.
fn keep_writing(lab: &Lab, memory: &Memory, map: &Mapping) -> Result<()> {
    let task = Task::Touch { range: map.all(), write: true, rounds: 1000 };
    let order = serde_json::to_string(&Order { id: 0, task })?;
    memory.program().send(format!("{order}\n").as_str())?;
    let before = lab.device().status()?.resident.evicted;
    lab.wait("the guest to write", |lab| Ok(lab.device().status()?.resident.evicted > before + 1024))
}
