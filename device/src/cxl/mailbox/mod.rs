//! The primary mailbox (CXL 3.1, 8.2.8.4): a command register, a payload, a doorbell.
//!
//! [`Mailbox`] is the protocol. [`COMMANDS`] lists the commands, one a line: each is a function that takes the input payload
//! and returns an [`Answer`] or a [`ReturnCode`].
//!
//! The registers are no [`RegisterMap`](super::registers::RegisterMap): most values are computed when they are read (status
//! and background status come from the running operation), and the payload is 2 KiB or more without any masks.
//!
//! A command is done, or in the background, before the write that rang returns: the doorbell is seen set only while a
//! command waits that a tester has made late ([`Phase::Doorbell`]).

pub(super) mod alert;
mod background;
mod events;
pub(super) mod firmware;
pub(super) mod health;
mod identify;
mod late;
mod logs;
mod lsa;
mod media_operations;
mod partition;
pub(super) mod payload_size;
pub(super) mod poison;
pub(super) mod return_code;
pub(super) mod sanitize;
mod security;
pub(super) mod timestamp;
pub(super) mod vendor;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tracing::debug;

use self::{late::LateCommand, payload_size::PayloadSize, return_code::ReturnCode};
use super::{background::Job, delay::Phase, device_state::DeviceState, failure::Point, layout::copy_overlap, vectors};

/// Registers, as offsets from the mailbox's own start.
const CAPABILITIES: u64 = 0x00;
const CONTROL: u64 = 0x04;
const COMMAND: u64 = 0x08;
const STATUS: u64 = 0x10;
const BACKGROUND_STATUS: u64 = 0x18;
const PAYLOAD: u64 = 0x20;
/// Bytes of the whole capability.
pub(super) fn size(payload: PayloadSize) -> u64 {
    PAYLOAD + payload.bytes() as u64
}

/// Capabilities besides the payload size, which is 4:0: background interrupt capable 6, message number 10:7.
const CAPABILITIES_VALUE: u32 = 1 << 6 | (vectors::MAILBOX as u32) << 7;
/// Control: the doorbell, and the background completion interrupt.
const DOORBELL: u32 = 1 << 0;
const BACKGROUND_INTERRUPT: u32 = 1 << 2;

/// The result of a command that did not fail.
pub(super) enum Answer {
    /// The command is done. The output payload, at most [`DeviceState::payload_size`] bytes.
    Done(Vec<u8>),
    /// The command continues in the background.
    Background(Job),
}

/// How a command ends.
type Outcome = Result<Answer, ReturnCode>;

/// A command of the table.
pub(super) struct Command {
    /// Command set and command.
    pub(super) opcode: u16,
    /// Its effects, as listed in the Command Effects Log.
    pub(super) effects: u16,
    run: fn(&Arc<DeviceState>, &[u8]) -> Outcome,
}

impl Command {
    /// Whether the command can start a background operation.
    pub(super) fn goes_on_in_background(&self) -> bool {
        self.effects & effect::BACKGROUND != 0
    }
}

/// Command effects (CXL 3.1, table 8-75).
mod effect {
    pub(super) const NONE: u16 = 0;
    pub(super) const CONFIGURATION_AT_COLD_RESET: u16 = 1 << 0;
    pub(super) const IMMEDIATE_CONFIGURATION: u16 = 1 << 1;
    pub(super) const IMMEDIATE_DATA: u16 = 1 << 2;
    pub(super) const IMMEDIATE_POLICY: u16 = 1 << 3;
    pub(super) const IMMEDIATE_LOG: u16 = 1 << 4;
    pub(super) const SECURITY_STATE: u16 = 1 << 5;
    pub(super) const BACKGROUND: u16 = 1 << 6;
    pub(super) const ABORTABLE: u16 = 1 << 8;
}

/// Every command, in opcode order: what the Command Effects Log lists and what the mailbox executes.
#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = {
    use effect::*;
    &[
        Command { opcode: 0x0005, effects: NONE, run: background::request_abort },
        Command { opcode: 0x0100, effects: NONE, run: events::get_event_records },
        Command { opcode: 0x0101, effects: IMMEDIATE_LOG, run: events::clear_event_records },
        Command { opcode: 0x0102, effects: NONE, run: events::get_event_interrupt_policy },
        Command { opcode: 0x0103, effects: IMMEDIATE_POLICY, run: events::set_event_interrupt_policy },
        Command { opcode: 0x0200, effects: NONE, run: firmware::get_fw_info },
        Command { opcode: 0x0201, effects: NONE, run: firmware::transfer_fw },
        Command { opcode: 0x0202, effects: CONFIGURATION_AT_COLD_RESET | IMMEDIATE_CONFIGURATION, run: firmware::activate_fw },
        Command { opcode: 0x0300, effects: NONE, run: timestamp::get_timestamp },
        Command { opcode: 0x0301, effects: IMMEDIATE_POLICY, run: timestamp::set_timestamp },
        Command { opcode: 0x0400, effects: NONE, run: logs::get_supported_logs },
        Command { opcode: 0x0401, effects: NONE, run: logs::get_log },
        Command { opcode: 0x4000, effects: NONE, run: identify::identify_memory_device },
        Command { opcode: 0x4100, effects: NONE, run: partition::get_partition_info },
        Command { opcode: 0x4102, effects: NONE, run: lsa::get_lsa },
        Command { opcode: 0x4103, effects: IMMEDIATE_CONFIGURATION | IMMEDIATE_DATA, run: lsa::set_lsa },
        Command { opcode: 0x4200, effects: NONE, run: health::get_health_info },
        Command { opcode: 0x4201, effects: NONE, run: alert::get_alert_configuration },
        Command { opcode: 0x4202, effects: IMMEDIATE_POLICY, run: alert::set_alert_configuration },
        Command { opcode: 0x4300, effects: NONE, run: poison::get_poison_list },
        Command { opcode: 0x4301, effects: IMMEDIATE_DATA, run: poison::inject_poison },
        Command { opcode: 0x4302, effects: IMMEDIATE_DATA, run: poison::clear_poison },
        Command { opcode: 0x4303, effects: NONE, run: poison::get_scan_media_capabilities },
        Command { opcode: poison::SCAN_MEDIA, effects: BACKGROUND | ABORTABLE, run: poison::scan_media },
        Command { opcode: 0x4305, effects: NONE, run: poison::get_scan_media_results },
        Command { opcode: 0x4400, effects: IMMEDIATE_DATA | SECURITY_STATE | BACKGROUND, run: sanitize::sanitize },
        Command { opcode: 0x4402, effects: IMMEDIATE_DATA | SECURITY_STATE | BACKGROUND | ABORTABLE, run: media_operations::media_operations },
        Command { opcode: 0x4500, effects: NONE, run: security::get_security_state },
        Command { opcode: 0xc000, effects: NONE, run: vendor::get_occupancy },
        Command { opcode: 0xc001, effects: IMMEDIATE_POLICY, run: vendor::set_watermarks },
    ]
};

/// The command with this opcode.
pub(super) fn command(opcode: u16) -> Option<&'static Command> {
    let found = COMMANDS.binary_search_by_key(&opcode, |command| command.opcode);
    found.ok().map(|index| &COMMANDS[index])
}

/// Refuses an input payload whose length is not the one that the command takes.
fn expect_length(input: &[u8], length: usize) -> Result<(), ReturnCode> {
    if input.len() == length { Ok(()) } else { Err(ReturnCode::InvalidPayloadLength) }
}

/// The mailbox registers.
pub(super) struct Mailbox {
    shared: Arc<Shared>,
    /// The last command that was late. Its thread does not take this lock.
    late: Mutex<Option<LateCommand>>,
}

/// What the thread of a late command needs.
struct Shared {
    state: Arc<DeviceState>,
    registers: Mutex<Registers>,
}

struct Registers {
    /// A late command waits for its execution. The registers take no writes meanwhile.
    doorbell: bool,
    command: [u8; 8],
    status: u64,
    payload: Box<[u8]>,
}

impl Registers {
    /// The reset values.
    fn new(payload: PayloadSize) -> Self {
        Self { doorbell: false, command: [0; 8], status: 0, payload: vec![0; payload.bytes()].into() }
    }
}

/// What was in the registers when the doorbell rang.
struct Request {
    opcode: u16,
    /// The input payload; `None` if its length is more than the registers hold.
    input: Option<Box<[u8]>>,
}

impl Mailbox {
    pub(super) fn new(state: Arc<DeviceState>) -> Self {
        let registers = Mutex::new(Registers::new(state.payload_size));
        Self { shared: Arc::new(Shared { state, registers }), late: Mutex::default() }
    }

    /// Reads bytes at an offset from the mailbox's start.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let background = &self.shared.state.background;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let registers = self.shared.registers.lock();
        let control = flag(registers.doorbell, DOORBELL) | flag(background.interrupt_enabled(), BACKGROUND_INTERRUPT);
        let capabilities = CAPABILITIES_VALUE | self.shared.state.payload_size.shift();
        copy_overlap(CAPABILITIES, &capabilities.to_le_bytes(), offset, data);
        copy_overlap(CONTROL, &control.to_le_bytes(), offset, data);
        copy_overlap(COMMAND, &registers.command, offset, data);
        copy_overlap(STATUS, &(registers.status | u64::from(background.running())).to_le_bytes(), offset, data);
        copy_overlap(BACKGROUND_STATUS, &background.status_register().to_le_bytes(), offset, data);
        copy_overlap(PAYLOAD, &registers.payload, offset, data);
    }

    /// Writes bytes at an offset from the mailbox's start. One write touches the doorbell last, wherever it lies in it.
    /// While the doorbell is set, nothing is written.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let mut control = None;
        let mut registers = self.shared.registers.lock();
        if registers.doorbell {
            return;
        }
        for (at, &byte) in (offset..).zip(data) {
            match at {
                CONTROL => control = Some(u32::from(byte)),
                COMMAND..STATUS => registers.command[(at - COMMAND) as usize] = byte,
                PAYLOAD.. => {
                    if let Some(register) = registers.payload.get_mut((at - PAYLOAD) as usize) {
                        *register = byte;
                    }
                }
                _ => {}
            }
        }
        drop(registers);
        if let Some(control) = control {
            let (ring, interrupt) = (control & DOORBELL != 0, control & BACKGROUND_INTERRUPT != 0);
            // A ring does not disable the interrupt: Linux enables it once and then writes the doorbell alone.
            if interrupt || !ring {
                self.shared.state.background.enable_interrupt(interrupt);
            }
            if ring {
                self.ring();
            }
        }
    }

    /// Registers at their reset values. A late command is not executed any more; one that runs ends first.
    pub(super) fn reset(&self) {
        *self.late.lock() = None;
        *self.shared.registers.lock() = Registers::new(self.shared.state.payload_size);
    }

    /// Executes the command in the registers and leaves its outcome there, now or, if it is to be late, later.
    fn ring(&self) {
        let request = {
            let registers = self.shared.registers.lock();
            // Opcode 15:0, payload length 36:16.
            let command = u64::from_le_bytes(registers.command);
            let (opcode, length) = (command as u16, (command >> 16) as usize & 0x1f_ffff);
            Request { opcode, input: registers.payload.get(..length).map(Box::from) }
        };
        match self.shared.state.delays.take(request.opcode, Phase::Doorbell) {
            Some(delay) => self.serve_late(request, delay),
            None => self.shared.serve(&request),
        }
    }

    /// Keeps the doorbell set for this long, and then serves the request.
    fn serve_late(&self, request: Request, delay: Duration) {
        let opcode = request.opcode;
        debug!(opcode = format_args!("{opcode:#06x}"), ?delay, "mailbox command is late on request");
        self.shared.registers.lock().doorbell = true;
        let shared = Arc::clone(&self.shared);
        match LateCommand::start(delay, move || shared.serve(&request)) {
            Ok(late) => *self.late.lock() = Some(late),
            Err(error) => {
                tracing::error!(%error, "cannot start the thread of a late mailbox command");
                self.shared.finish(opcode, ReturnCode::InternalError as u16, &[]);
            }
        }
    }
}

impl Shared {
    /// Executes a command and leaves its outcome in the registers.
    fn serve(&self, request: &Request) {
        let &Request { opcode, ref input } = request;
        let (code, output) = match self.state.failures.take(opcode, Point::Command) {
            Some(code) => {
                debug!(opcode = format_args!("{opcode:#06x}"), code, "mailbox command fails on request");
                (code, Vec::new())
            }
            None => {
                let (code, output) = self.answer(opcode, input.as_deref());
                let length = input.as_ref().map(|input| input.len());
                debug!(opcode = format_args!("{opcode:#06x}"), length, ?code, "mailbox command");
                (code as u16, output)
            }
        };
        self.finish(opcode, code, &output);
    }

    /// Leaves an outcome in the registers, and the doorbell clear.
    fn finish(&self, opcode: u16, code: u16, output: &[u8]) {
        let mut registers = self.registers.lock();
        let length = output.len().min(registers.payload.len());
        registers.payload[..length].copy_from_slice(&output[..length]);
        registers.command = (u64::from(opcode) | (length as u64) << 16).to_le_bytes();
        registers.status = u64::from(code) << 32;
        registers.doorbell = false;
    }

    /// Executes a command. Returns its return code and output payload. `input` is None if it is longer than the registers.
    fn answer(&self, opcode: u16, input: Option<&[u8]>) -> (ReturnCode, Vec<u8>) {
        let outcome = match input {
            Some(input) => self.execute(opcode, input),
            None => Err(ReturnCode::InvalidPayloadLength),
        };
        match outcome {
            Ok(Answer::Done(output)) => (ReturnCode::Success, output),
            Ok(Answer::Background(job)) => {
                let job = match self.state.failures.take(opcode, Point::Background) {
                    Some(code) => job.failing(code),
                    None => job,
                };
                let job = match self.state.delays.take(opcode, Phase::Background) {
                    Some(delay) => job.delayed(delay),
                    None => job,
                };
                match self.state.background.start(opcode, job) {
                    Ok(()) => (ReturnCode::BackgroundStarted, Vec::new()),
                    Err(code) => (code, Vec::new()),
                }
            }
            Err(code) => (code, Vec::new()),
        }
    }

    fn execute(&self, opcode: u16, input: &[u8]) -> Outcome {
        let command = command(opcode).ok_or(ReturnCode::Unsupported)?;
        if command.goes_on_in_background() && self.state.background.running() {
            return Err(ReturnCode::Busy);
        }
        (command.run)(&self.state, input)
    }
}
