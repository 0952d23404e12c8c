//! The guest restarts on a live device: registers are reset, and no region owns the old data.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "reboot",
    story: "an orderly restart and a crash: decoders cleared, poison kept, a region made again, events heard",
    needs: &[
        Need::Config("DEV_DAX_KMEM"),
        Need::Config("MAGIC_SYSRQ"),
        Need::Path("/sys/kernel/debug/cxl/mem0/inject_poison"),
    ],
    machine: MachineShape { restarts: true, ..MachineShape::USUAL },
    limit: Duration::from_secs(120),
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
const DATA: Pattern = Pattern::Compressible { seed: 51, ratio: 3.0 };
/// An address without data.
const POISON: &str = "0x1ffff000";

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("a region in use, and a line of poison");
    in_use(lab, "first boot")?;
    lab.guest.write_file("/sys/kernel/debug/cxl/mem0/inject_poison", POISON)?;

    lab.step("an orderly restart");
    lab.reboot()?;
    fresh(lab, "reboot")?;
    in_use(lab, "reboot")?;

    lab.step("a crash: nothing is torn down");
    lab.crash_reboot()?;
    fresh(lab, "crash")?;
    lab.guest.write_file("/sys/kernel/debug/cxl/mem0/clear_poison", POISON)?;
    lab.fact("poisoned bytes after clear poison", lab.device().status()?.poisoned);
    in_use(lab, "crash")
}

/// Creates a region with data, and raises a health event for the kernel.
fn in_use(lab: &mut Lab, when: &str) -> Result<()> {
    let region = lab.create_region_on(0)?;
    lab.online_node(region.node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact(&format!("{when}.pages wrong"), verdict.pages_wrong);
    let mut trace = lab.guest.trace("health", &["cxl"])?;
    lab.device().execute(control::InjectLowWatermark {})?;
    lab.fact(&format!("{when}.event"), lab.event(&mut trace, "cxl_memory_module", &["log", "health_status"])?);
    lab.device().execute(control::InjectHighWatermark {})?;
    Ok(())
}

/// Records what a restarted guest finds.
fn fresh(lab: &mut Lab, when: &str) -> Result<()> {
    lab.fact(&format!("{when}.decoders"), lab.decoders(0)?);
    lab.fact(&format!("{when}.regions"), lab.cxl("list -R -i")?);
    lab.fact(&format!("{when}.nodes"), lab.guest.read_text("/sys/devices/system/node/online")?.trim());
    let status = lab.device().status()?;
    lab.fact(&format!("{when}.contents kept over the reset"), status.used > 16 * MIB);
    lab.fact(&format!("{when}.poisoned bytes"), status.poisoned);
    Ok(())
}
