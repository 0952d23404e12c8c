//! The driver binds and finds everything that the device says of itself.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "enumerate",
    story: "cxl list shows the memory device, endpoint, decoders, capacity and CDAT performance",
    tell,
    ..Scenario::USUAL
};

fn tell(lab: &mut Lab) -> Result<()> {
    lab.step("the PCI function is bound to cxl_pci");
    let host = lab.cxl("list -M")?[0]["host"].as_str().context("no memory device")?.to_owned();
    let function = format!("/sys/bus/pci/devices/{host}");
    for name in ["vendor", "device", "class"] {
        let value = lab.guest.read_text(&format!("{function}/{name}"))?;
        lab.fact(&format!("pci.{name}"), value.trim());
    }
    let driver = lab.sh(&format!("basename $(readlink {function}/driver)"))?;
    lab.fact("pci.driver", driver.trim());

    lab.step("the memory device answers its mailbox");
    let memdev = lab.cxl("list -M -H -A -F")?;
    lab.fact("memdev", pick(&memdev[0], &["memdev", "ram_size", "serial", "numa_node"]));
    lab.fact("health", pick(&memdev[0]["health"], &["maintenance_needed", "performance_degraded", "hw_replacement_needed",
        "media_normal", "media_not_ready", "life_used_percent", "dirty_shutdowns"]));
    lab.fact("alerts", memdev[0]["alert_config"].clone());

    lab.step("ports, endpoint and decoders are where the topology says");
    let endpoint = lab.cxl("list -E")?;
    lab.fact("endpoint", pick(&endpoint, &["endpoint", "depth", "decoders_committed"]));
    let window = lab.cxl("list -D -d root")?;
    lab.fact("window", pick(&window, &["decoder", "size", "interleave_ways", "max_available_extent", "volatile_capable",
        "nr_targets"]));
    let decoders = lab.cxl("list -D -d endpoint -i")?;
    lab.fact("endpoint decoders", decoders.as_array().map_or(1, Vec::len));

    lab.step("CDAT came over DOE");
    let cdat = lab.guest.read_file("/sys/bus/cxl/devices/endpoint2/CDAT")?;
    lab.fact("cdat.structures", cdat_structures(&cdat)?);
    lab.fact("cdat.checksum", cdat.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)));
    let qos = lab.guest.read_text("/sys/bus/cxl/devices/mem0/ram/qos_class")?;
    lab.fact("ram.qos_class", qos.trim());

    lab.step("the event logs are empty");
    let records = lab.sh("dmesg | grep -c 'cxl.*event.*overflow' || true")?;
    lab.fact("event overflows in the log", records.trim());
    Ok(())
}

/// The CDAT's structures by type, in order (UEFI CDAT 1.03, table 2).
fn cdat_structures(cdat: &[u8]) -> Result<Vec<&'static str>> {
    let names = ["DSMAS", "DSLBIS", "DSMSCIS", "DSIS", "DSEMTS", "SSLBIS"];
    let (mut at, mut found) = (16, Vec::new());
    while at < cdat.len() {
        let length = cdat.get(at + 2..at + 4).context("a structure header is cut off")?;
        found.push(*names.get(usize::from(cdat[at])).context("an unknown structure type")?);
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        ensure!(length >= 4, "a structure of length {length}");
        at += length;
    }
    Ok(found)
}
