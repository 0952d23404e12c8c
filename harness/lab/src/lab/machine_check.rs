//! Machine checks: what a processor raises when the data it loads is poison.
//!
//! QEMU's processor does not know about the device's poison: a load gets the poison pattern and goes on. The device reports
//! such loads, and each becomes a machine check, raised through QEMU's monitor, one at a time. So a machine check comes
//! after the load, as one found by patrol scrubbing does: *action optional* (SRAO), with the address.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use cxl_cram_device::control::api::Event;
use qapi::qmp::human_monitor_command;

use super::{LIMIT, Lab};
use crate::guest::trace::Trace;
use crate::machine::qmp::MonitorAddress;
use crate::rig::device_events::Listener;

/// A bank that Linux treats specially on no processor model.
const BANK: u32 = 9;
/// IA32_MCi_STATUS (SDM volume 3, 16.3.2.2): valid, uncorrected, enabled, MISC and ADDR valid, signaled; the code is memory
/// scrubbing. Processor context is not corrupt, no action is required.
const STATUS: u64 = 0xbd00_0000_0000_00c0;
/// IA32_MCG_STATUS: the interrupted program can go on, a machine check is in progress, and it is this processor's alone.
const MCG_STATUS: u64 = 0b1101;
/// IA32_MCi_MISC: the address is physical, and good to a page.
const MISC: u64 = 0b10 << 6 | 12;

const PAGE: u64 = 4096;

/// The threads that listen to the devices.
pub(super) struct MachineChecks {
    stopping: Arc<AtomicBool>,
    listeners: Vec<Listener<()>>,
}

impl MachineChecks {
    /// From now on, a load of poison in the guest raises a machine check for its page. The device's addresses are offsets in
    /// its window, which is its BAR.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let trace = lab.guest.trace("machine-check", &["mce:mce_record"])?;
        let injector = Arc::new(Mutex::new(Injector { monitor: lab.machine.monitor_address(), trace }));
        let mut checks = Self { stopping: Arc::default(), listeners: Vec::new() };
        for (device, bar) in lab.devices.iter().zip(&lab.bars) {
            let (injector, window, stopping) = (Arc::clone(&injector), bar.address, Arc::clone(&checks.stopping));
            checks.listeners.push(device.listen(move |(), event| {
                let raised = raise(&event, window, &injector);
                // The machine may have been taken down meanwhile.
                if stopping.load(Ordering::Acquire) { Ok(()) } else { raised }
            })?);
        }
        Ok(checks)
    }

    /// Stops listening, and returns the first error.
    pub(super) fn finish(self) -> Result<()> {
        self.stopping.store(true, Ordering::Release);
        let finished = self.listeners.into_iter().map(Listener::finish);
        finished.fold(Ok(()), Result::and).context("cannot raise a machine check for a load of poison")
    }
}

/// Raises a machine check for each page whose poison was loaded, by the device's event.
fn raise(event: &Event, window: u64, injector: &Mutex<Injector>) -> Result<()> {
    let &Event::PoisonRead { dpa, length } = event else { return Ok(()) };
    for page in dpa / PAGE..(dpa + length).div_ceil(PAGE) {
        injector.lock().unwrap_or_else(PoisonError::into_inner).raise(window + page * PAGE)?;
    }
    Ok(())
}

/// Raises machine checks in the guest.
struct Injector {
    monitor: MonitorAddress,
    trace: Trace,
}

impl Injector {
    /// Raises a machine check and waits until the guest has handled it: a second one in the meantime would shut the processor
    /// down. The kernel traces a record when it returns from the exception.
    fn raise(&mut self, address: u64) -> Result<()> {
        let command_line = format!("mce 0 {BANK} {STATUS:#x} {MCG_STATUS:#x} {address:#x} {MISC:#x}");
        let command = human_monitor_command { cpu_index: None, command_line };
        // One connection each: QEMU allows one at a time, and the scenario may need it.
        let answer = self.monitor.connect()?.execute(&command)?;
        ensure!(answer.trim().is_empty(), "QEMU refused \"{}\": {}", command.command_line, answer.trim());
        let address = format!("{address:x}");
        self.trace
            .wait_for(|line| line.contains("mce_record") && line.contains(&address), LIMIT)
            .with_context(|| format!("the guest traced no machine check at {address}"))?;
        Ok(())
    }
}
