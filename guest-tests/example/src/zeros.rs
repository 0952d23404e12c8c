//! Zeros on the node take no media.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "zeros",
    story: "64 MiB of zeros on the node are verified, and take no media",
    run,
    ..Scenario::USUAL
};

const LIMIT: Duration = Duration::from_secs(10);

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("put the device's memory online");
    lab.create_region()?;
    lab.online_node(1)?;

    lab.step("zeros to node 1");
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(1, 64 << 20, LIMIT)?;
    memory.fill(map.all(), &Pattern::Zero, LIMIT)?;
    let verdict = memory.verify(map.all(), &Pattern::Zero, LIMIT)?;
    lab.fact("pages wrong", verdict.pages_wrong);

    lab.step("what the device holds");
    let status = lab.device().status()?;
    lab.fact("less than 1 MiB used", status.used < 1 << 20);
    lab.figure("used", format_bytes(status.used));
    Ok(())
}
