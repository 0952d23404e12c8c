//! Firmware (CXL 3.1, 8.2.10.3): two slots, one of which runs. A package is taken part by part and activated at once, or
//! by the next power-on.
//!
//! There is nothing in a package to run: its first 16 bytes name its revision, and that is all that is kept of it.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{
    device_state::DeviceState,
    layout::{Layout, field},
};

/// Slots; they count from 1.
const SLOTS: usize = 2;
/// Activation capabilities: online.
const ONLINE: u8 = 1 << 0;

/// Bytes of Transfer FW before the part, and the unit of its offset.
const PART: usize = 0x80;

/// Actions of Transfer FW.
const FULL: u8 = 0;
const INITIATE: u8 = 1;
const CONTINUE: u8 = 2;
const END: u8 = 3;
const ABORT: u8 = 4;
/// Actions of Activate FW.
const NOW: u8 = 0;
const NEXT_POWER_ON: u8 = 1;

/// What a slot holds: ASCII, padded with zeros.
pub(super) type Revision = [u8; 16];

/// The slots, and a transfer under way.
#[derive(Debug)]
pub(in crate::cxl) struct Firmware {
    slots: [Option<Revision>; SLOTS],
    /// Index of the slot that runs.
    active: usize,
    /// Index of the slot that runs after the next power-on, if another.
    staged: Option<usize>,
    transfer: Option<Transfer>,
}

#[derive(Debug)]
struct Transfer {
    revision: Revision,
    /// Where the last part began, in units of 128 bytes.
    last: u32,
    /// Where the next one begins.
    next: u32,
}

impl Default for Firmware {
    /// Slot 1 holds this crate's version and runs.
    fn default() -> Self {
        Self {
            slots: [Some(revision(env!("CARGO_PKG_VERSION").as_bytes())), None],
            active: 0,
            staged: None,
            transfer: None,
        }
    }
}

/// The first bytes of these, padded with zeros.
fn revision(bytes: &[u8]) -> Revision {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))
}

impl Firmware {
    /// What runs.
    pub(super) fn running(&self) -> Revision {
        self.slots[self.active].unwrap_or_default()
    }

    /// A reset ends a transfer.
    pub(in crate::cxl) fn reset(&mut self) {
        self.transfer = None;
    }

    /// With the power the staged slot comes on.
    pub(in crate::cxl) fn power_on(&mut self) {
        self.active = self.staged.take().unwrap_or(self.active);
    }

    /// The index of a slot that does not run.
    fn spare(&self, slot: u8) -> Result<usize, ReturnCode> {
        let index = usize::from(slot).checked_sub(1).filter(|&index| index < SLOTS && index != self.active);
        index.ok_or(ReturnCode::FirmwareInvalidSlot)
    }

    /// Begins a transfer with its first part.
    fn begin(&mut self, offset: u32, part: &[u8]) -> Result<(), ReturnCode> {
        if self.transfer.is_some() {
            return Err(ReturnCode::FirmwareTransferInProgress);
        }
        if offset != 0 {
            return Err(ReturnCode::FirmwareTransferOutOfOrder);
        }
        self.transfer = Some(Transfer { revision: revision(part), last: 0, next: units(part) });
        Ok(())
    }

    /// Takes a further part; the last one may come again.
    fn go_on(&mut self, offset: u32, part: &[u8]) -> Result<(), ReturnCode> {
        let transfer = self.transfer.as_mut().ok_or(ReturnCode::FirmwareTransferOutOfOrder)?;
        if offset != transfer.next && offset != transfer.last {
            return Err(ReturnCode::FirmwareTransferOutOfOrder);
        }
        transfer.last = offset;
        transfer.next = offset.checked_add(units(part)).ok_or(ReturnCode::InvalidInput)?;
        Ok(())
    }

    /// Puts the transferred package into a slot. It must have a revision.
    fn finish(&mut self, index: usize) -> Result<(), ReturnCode> {
        let transfer = self.transfer.take().ok_or(ReturnCode::FirmwareTransferOutOfOrder)?;
        if transfer.revision[0] == 0 {
            return Err(ReturnCode::FirmwareVerificationFailed);
        }
        self.slots[index] = Some(transfer.revision);
        Ok(())
    }
}

/// A part's length in units of 128 bytes; the last one of a package may be shorter.
fn units(part: &[u8]) -> u32 {
    part.len().div_ceil(PART) as u32
}

/// 0200h Get FW Info. No input. Output (50h): slots, active slot 2:0 and staged slot 5:3, capabilities, revisions.
pub(super) fn get_fw_info(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let firmware = device.firmware.lock();
    let staged = firmware.staged.map_or(0, |index| index + 1);
    let layout = Layout::zeroed(0x50)
        .u8(0x00, SLOTS as u8)
        .u8(0x01, (firmware.active + 1) as u8 | (staged as u8) << 3)
        .u8(0x02, ONLINE);
    let output = firmware
        .slots
        .iter()
        .enumerate()
        .fold(layout, |layout, (index, revision)| layout.bytes(0x10 + 0x10 * index, &revision.unwrap_or_default()));
    Ok(Answer::Done(output.into_bytes()))
}

/// 0201h Transfer FW. Input: action, slot, reserved (2), offset in units of 128 bytes (4), reserved to 80h, a part of the
/// package. No output. The slot counts where a package ends; it must not be the active one.
pub(super) fn transfer_fw(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    let Some((header, part)) = input.split_first_chunk::<PART>() else {
        return Err(ReturnCode::InvalidPayloadLength);
    };
    let (action, slot) = (header[0], header[1]);
    let offset = field(header, 4).map(u32::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength)?;
    let mut firmware = device.firmware.lock();
    match action {
        FULL => {
            let index = firmware.spare(slot)?;
            firmware.begin(offset, part)?;
            firmware.finish(index)?;
        }
        INITIATE => firmware.begin(offset, part)?,
        CONTINUE => firmware.go_on(offset, part)?,
        END => {
            let index = firmware.spare(slot)?;
            firmware.go_on(offset, part)?;
            firmware.finish(index)?;
        }
        ABORT => firmware.transfer = None,
        _ => return Err(ReturnCode::InvalidInput),
    }
    Ok(Answer::Done(Vec::new()))
}

/// 0202h Activate FW. Input: action, slot. No output. The slot must hold a package and not be the active one.
pub(super) fn activate_fw(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 2)?;
    let mut firmware = device.firmware.lock();
    let index = firmware.spare(input[1])?;
    if firmware.slots[index].is_none() {
        return Err(ReturnCode::FirmwareInvalidSlot);
    }
    match input[0] {
        NOW => {
            firmware.active = index;
            firmware.staged = None;
        }
        NEXT_POWER_ON => firmware.staged = Some(index),
        _ => return Err(ReturnCode::InvalidInput),
    }
    Ok(Answer::Done(Vec::new()))
}
