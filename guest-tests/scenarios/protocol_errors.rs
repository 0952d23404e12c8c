//! Protocol errors of CXL.mem: the device holds them, its root port reports, and the kernel asks.

use cxl_cram_harness::scenario::prelude::*;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "protocol_errors",
    story: "uncorrectable errors in the RAS structure are decoded, the first one named; the device can be bound again",
    needs: &[Need::Symbol("cxl_error_detected"), Need::Path("/sys/kernel/tracing/events/cxl/cxl_aer_uncorrectable_error")],
    machine: MachineShape { expected: &[LOCK_ORDER], ..MachineShape::USUAL },
    tell,
    ..Scenario::USUAL
};

/// What a kernel that checks lock order says of 6.12 here: the recovery takes the memory device's lock under `pci_bus_sem`,
/// the enumeration of ports takes `pci_bus_sem` under it.
const LOCK_ORDER: &str = "possible circular locking dependency detected";
/// Who takes it, in the report's fifth line. A report that names another is trouble.
const TAKEN_BY: &str = "at: cxl_error_detected+";

/// Uncorrectable AER status: a poisoned TLP was received.
const POISONED_TLP: u32 = 1 << 12;

fn tell(lab: &mut Lab) -> Result<()> {
    let mut trace = lab.guest.trace("story", &["cxl"])?;

    lab.step("two errors stand in the device; the root port reports one of its own");
    let header: Vec<u32> = (0x10..0x20).collect();
    let errors = json!({"errors": [{"type": "mem-data-ecc", "header": header}, {"type": "poison-received", "header": []}]});
    lab.device().execute("cxl-inject-uncorrectable-errors", errors)?;
    lab.root_port_error(0, POISONED_TLP)?;
    let event = lab.whole_event(&mut trace, "cxl_aer_uncorrectable_error")?;
    lab.fact("event", event);

    lab.step("the kernel has let go of the device, and takes it back");
    lab.wait("recovery", |lab| lab.holds("dmesg | grep -q 'AER: device recovery'"))?;
    // Linux tries by itself, and is too early where the work of the detachment still waits (-EBUSY).
    lab.figure("recovery", lab.sh("dmesg | grep -o 'device recovery .*'")?.trim());
    let bound = "test -e /sys/bus/cxl/devices/mem0/driver || echo mem0 > /sys/bus/cxl/drivers/cxl_mem/bind";
    lab.wait("the memory device to be bound", |lab| lab.holds(bound))?;
    lab.fact("endpoint", pick(&lab.cxl("list -E -M")?[0], &["host", "depth", "decoders_committed"]));
    // There is one report at most: the kernel checks no more after it.
    let report = lab.sh(&format!("dmesg | grep -A 4 '{LOCK_ORDER}' || true"))?;
    ensure!(report.is_empty() || report.contains(TAKEN_BY), "the guest kernel said: {report}");
    Ok(())
}
