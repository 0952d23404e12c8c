//! Resets from sysfs: what they clear in the device, what they leave, and how Linux reacts.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "reset",
    story: "a function-level reset leaves CXL.mem alone, a bus reset uncommits the decoders; both clear the event policy",
    needs: &[Need::Config("DEV_DAX_KMEM"), Need::Config("CXL_MEM_RAW_COMMANDS")],
    run,
    ..Scenario::USUAL
};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);
/// Event logs: the MSI-X vector, and the command that adds a record.
const INFORMATION: (u16, Inject) = (2, |device| device.execute(control::InjectHighWatermark {}).map(drop));
const WARNING: (u16, Inject) = (3, |device| device.execute(control::InjectLowWatermark {}).map(drop));
type Inject = fn(&Device) -> Result<()>;
const DATA: Pattern = Pattern::Compressible { seed: 41, ratio: 3.0 };

fn run(lab: &mut Lab) -> Result<()> {
    let function = format!("/sys/bus/pci/devices/{}", lab.function(0)?);
    let methods = lab.guest.read_text(&format!("{function}/reset_method"))?;
    lab.fact("reset methods", methods.split_whitespace().collect::<Vec<_>>());

    lab.step("memory in use, events that interrupt");
    let region = lab.create_region_on(0)?;
    lab.online_node(region.node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    lab.fact("before", state(lab, WARNING, true)?);

    lab.step("function-level reset");
    lab.sh(&format!("cd {function} && echo flr > reset_method && echo 1 > reset"))?;
    lab.fact("after FLR", state(lab, INFORMATION, false)?);
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("after FLR.pages wrong", verdict.pages_wrong);

    lab.step("Linux does not set the event interrupt policy again; set by hand, MSI-X is there");
    let code = lab.mailbox(0x0103, "01010101")?;
    ensure!(code == 0, "set event interrupt policy returned {code:#x}");
    lab.fact("after FLR, policy set again", state(lab, WARNING, true)?);

    lab.step("Linux refuses to reset the bus of a CXL port by default");
    let refused = lab.refused(&format!("cd {function} && echo bus > reset_method && echo 1 > reset"))?;
    lab.fact("bus.refused", refused);

    lab.step("a bus reset on purpose, with the region still there");
    drop(memory);
    lab.offline_node(region.node)?;
    lab.sh(&format!("cd {function} && echo cxl_bus > reset_method && echo 1 > reset"))?;
    lab.fact("after bus reset", state(lab, WARNING, false)?);
    let message = lab.sh("dmesg | grep -o 'SBR happened.*'")?;
    lab.fact("after bus reset.kernel", message.trim());

    lab.step("after the driver is bound again, the device works");
    lab.destroy(&region.name)?;
    let name = lab.function(0)?;
    lab.sh(&format!("cd /sys/bus/pci/drivers/cxl_pci && echo {name} > unbind && echo {name} > bind"))?;
    let region = lab.create_region_on(0)?;
    lab.fact("bound again", state(lab, WARNING, true)?);
    lab.online_node(region.node)?;
    let mut memory = lab.guest.memory()?;
    let map = memory.map_on(region.node, 64 * MIB, LIMIT)?;
    memory.fill(map.all(), &DATA, LIMIT)?;
    let verdict = memory.verify(map.all(), &DATA, LIMIT)?;
    lab.fact("bound again.pages wrong", verdict.pages_wrong);
    Ok(())
}

/// The kernel's view of the decoders, the state of the device's first decoder, whether the mailbox answers, and whether a
/// record interrupts. A log interrupts only when it was empty, so after a missed interrupt it stays silent.
fn state(lab: &Lab, (vector, inject): (u16, Inject), heard: bool) -> Result<Value> {
    let believed = lab.decoders(0)?["committed"].clone();
    let health = lab.cxl(&format!("list -H -m {}", lab.memdev(0)?))?;
    let before = lab.interrupts(&[vector])?[0];
    inject(lab.device())?;
    if heard {
        lab.wait("the interrupt", |lab| Ok(lab.interrupts(&[vector])?[0] > before))?;
    } else {
        // An unexpected interrupt would have arrived by the time the mailbox answers.
        lab.cxl(&format!("list -H -m {}", lab.memdev(0)?))?;
    }
    let interrupts = lab.interrupts(&[vector])?[0] - before;
    Ok(json!({
        "decoders the kernel holds committed": believed,
        "decoder 0 of the device is": if lab.decoder_control(0)? & 1 << 10 != 0 { "committed" } else { "not committed" },
        "media normal": health[0]["health"]["media_normal"],
        "interrupts of an event": interrupts,
    }))
}
