//! The driver binds and finds everything that the device reports about itself.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "enumerate",
    story: "every field of cxl list -vvv: bus, ports, decoders, memory device with health, alerts, firmware, partitions",
    needs: &[Need::Program("cxl")],
    run,
    ..Scenario::USUAL
};

fn run(lab: &mut Lab) -> Result<()> {
    lab.step("the PCI function is bound to cxl_pci");
    let host = lab.cxl("list -M")?[0]["host"].as_str().context("no memory device")?.to_owned();
    let function = format!("/sys/bus/pci/devices/{host}");
    for name in ["vendor", "device", "class"] {
        let value = lab.guest.read_text(&format!("{function}/{name}"))?;
        lab.fact(&format!("pci.{name}"), value.trim());
    }
    let driver = lab.sh(&format!("basename $(readlink {function}/driver)"))?;
    lab.fact("pci.driver", driver.trim());

    lab.step("cxl lists all there is");
    lab.fact("cxl list -vvv", lab.cxl("list -vvv")?);

    lab.step("what sysfs adds");
    let memdev = lab.sh("cd /sys/bus/cxl/devices/mem0 && grep . serial numa_node payload_max label_storage_size \
        pmem/size security/state")?;
    lab.fact("mem0", memdev.lines().collect::<Vec<_>>());
    let records = lab.sh("dmesg | grep -c 'cxl.*event.*overflow' || true")?;
    lab.fact("event overflows in the log", records.trim());

    lab.step("decoders, once a region covers the whole device");
    lab.create_region()?;
    for kind in ["switch", "endpoint"] {
        lab.fact(&format!("{kind} decoder"), lab.cxl(&format!("list -D -T -d {kind}"))?);
    }
    lab.fact("region", lab.cxl("list -R -T -X")?);
    Ok(())
}
