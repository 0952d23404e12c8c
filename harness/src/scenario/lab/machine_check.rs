//! Machine checks: what a processor raises when the data it loads is poison.
//!
//! QEMU's processor knows nothing of the device's poison: its loads get the poison pattern, and go on. The device tells of
//! such loads; here they become machine checks, one after the other, raised through QEMU's monitor. So a machine check
//! comes after the load, as one found by patrol scrubbing does: *action optional* (SRAO), with the address.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use qapi::qmp::human_monitor_command;

use super::{LIMIT, Lab};
use crate::{
    guest::trace::Trace,
    machine::qmp::Door,
    scenario::{DeviceEvent, Listener},
};

/// A bank that no processor model uses for anything that Linux treats specially.
const BANK: u32 = 9;
/// IA32_MCi_STATUS (SDM volume 3, 16.3.2.2): valid, uncorrected, enabled, MISC and ADDR valid, signaled; the code is memory
/// scrubbing. Processor context is not corrupt, no action is required.
const STATUS: u64 = 0xbd00_0000_0000_00c0;
/// IA32_MCG_STATUS: the interrupted program can go on, a machine check is in progress, and it is this processor's alone.
const MCG_STATUS: u64 = 0b1101;
/// IA32_MCi_MISC: the address is physical, and good to a page.
const MISC: u64 = 0b10 << 6 | 12;

const PAGE: u64 = 4096;

/// The threads that hear the devices.
pub(super) struct MachineChecks {
    stopping: Arc<AtomicBool>,
    listeners: Vec<Listener<()>>,
}

impl MachineChecks {
    /// From now on, poison that the guest loads raises a machine check for its page. The device's addresses are offsets in the
    /// window, which is the BAR, wherever the firmware has put it.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let trace = lab.guest.trace("machine-check", &["mce:mce_record"])?;
        let injector = Arc::new(Mutex::new(Injector { door: lab.machine.monitor_door(), trace }));
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

    /// Ends it, and tells what went wrong.
    pub(super) fn finish(self) -> Result<()> {
        self.stopping.store(true, Ordering::Release);
        let finished = self.listeners.into_iter().map(Listener::finish);
        finished.fold(Ok(()), Result::and).context("poison that the guest loaded raised no machine check")
    }
}

/// Raises a machine check for each page of which the device says that poison was loaded.
fn raise(event: &DeviceEvent, window: u64, injector: &Mutex<Injector>) -> Result<()> {
    if event.name != "CXL_CRAM_POISON_READ" {
        return Ok(());
    }
    let (dpa, length) = (event.number("dpa")?, event.number("length")?);
    for page in dpa / PAGE..(dpa + length).div_ceil(PAGE) {
        injector.lock().unwrap_or_else(PoisonError::into_inner).raise(window + page * PAGE)?;
    }
    Ok(())
}

/// The way to the guest's processor.
struct Injector {
    door: Door,
    trace: Trace,
}

impl Injector {
    /// Raises a machine check and waits until the guest has handled it: one that comes while another is in progress would
    /// shut the processor down. The kernel traces a record when it is back from the exception.
    fn raise(&mut self, address: u64) -> Result<()> {
        let command_line = format!("mce 0 {BANK} {STATUS:#x} {MCG_STATUS:#x} {address:#x} {MISC:#x}");
        let command = human_monitor_command { cpu_index: None, command_line };
        // A connection for each: there can be one at a time, and the story may want it.
        let said = self.door.open()?.execute(&command)?;
        ensure!(said.trim().is_empty(), "QEMU says of \"{}\": {}", command.command_line, said.trim());
        let address = format!("{address:x}");
        self.trace
            .wait_for(|line| line.contains("mce_record") && line.contains(&address), LIMIT)
            .with_context(|| format!("the guest does not tell of the machine check at {address}"))?;
        Ok(())
    }
}
