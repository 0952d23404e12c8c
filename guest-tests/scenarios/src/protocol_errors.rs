//! Protocol errors of CXL.mem: the device records them, its root port reports, and the kernel reads them.

use cxl_cram_lab::prelude::*;

/// The scenario.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "protocol_errors",
    story: "uncorrectable errors in the RAS structure are decoded, the first one named; the device can be bound again",
    needs: &[
        Need::Symbol("cxl_error_detected"),
        Need::Path("/sys/kernel/tracing/events/cxl/cxl_aer_uncorrectable_error"),
    ],
    machine: MachineShape { expected: &[LOCK_ORDER], ..MachineShape::USUAL },
    run,
    ..Scenario::USUAL
};

/// Start of the report by which lockdep finds a fault of 6.12 here: recovery takes the memory device's lock under
/// `pci_bus_sem`, and the enumeration of ports takes `pci_bus_sem` under that lock.
const LOCK_ORDER: &str = "possible circular locking dependency detected";
/// The task in the report's fifth line. A report that names another is a fault.
const TAKEN_BY: &str = "at: cxl_error_detected+";

/// Uncorrectable AER status: a poisoned TLP was received.
const POISONED_TLP: u32 = 1 << 12;

fn run(lab: &mut Lab) -> Result<()> {
    let mut trace = lab.guest.trace("events", &["cxl"])?;

    lab.step("the device has recorded two errors; the root port reports its own");
    let header: Vec<u32> = (0x10..0x20).collect();
    let error = |r#type, header| control::UncorrectableError { r#type, header };
    let errors = vec![error(Uncorrectable::MemDataEcc, header), error(Uncorrectable::PoisonReceived, Vec::new())];
    lab.device().execute(control::InjectUncorrectableErrors { errors })?;
    lab.root_port_error(0, POISONED_TLP)?;
    let event = lab.whole_event(&mut trace, "cxl_aer_uncorrectable_error")?;
    lab.fact("event", event);

    lab.step("the kernel detaches the device, and attaches it again");
    lab.wait("recovery", |lab| lab.holds("dmesg | grep -q 'AER: device recovery'"))?;
    // Linux tries by itself, but too early if the detach work is still queued (-EBUSY).
    lab.figure("recovery", lab.sh("dmesg | grep -o 'device recovery .*'")?.trim());
    let bound = "test -e /sys/bus/cxl/devices/mem0/driver || echo mem0 > /sys/bus/cxl/drivers/cxl_mem/bind";
    lab.wait("the memory device to be bound", |lab| lab.holds(bound))?;
    lab.fact("endpoint", pick(&lab.cxl("list -E -M")?[0], &["host", "depth", "decoders_committed"]));
    // There is one report at most: lockdep turns itself off after it.
    let report = lab.sh(&format!("dmesg | grep -A 4 '{LOCK_ORDER}' || true"))?;
    ensure!(report.is_empty() || report.contains(TAKEN_BY), "the guest kernel reported: {report}");
    Ok(())
}
