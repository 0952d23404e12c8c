//! Event records (CXL 3.1, 8.2.10.2): get, clear, and how each log interrupts.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{
    device_state::DeviceState,
    event_record::Record,
    events::{InterruptMode, Log},
    layout::{Layout, field},
};

/// Bytes before the first record of the Get Event Records output.
const HEADER: usize = 0x20;

const OVERFLOW: u8 = 1 << 0;
const MORE_RECORDS: u8 = 1 << 1;
const CLEAR_ALL: u8 = 1 << 0;

/// 0100h Get Event Records. Input: log (1). Output: flags, overflow, count, the oldest records.
pub(super) fn get_event_records(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 1)?;
    let fit = (device.payload_size.bytes() - HEADER) / Record::SIZE;
    let retrieved = device.logs.get(Log::from_id(input[0])?, fit);
    let mut flags = 0;
    if retrieved.overflow.count > 0 {
        flags |= OVERFLOW;
    }
    if retrieved.more {
        flags |= MORE_RECORDS;
    }
    let header = Layout::zeroed(HEADER)
        .u8(0x00, flags)
        .u16(0x02, retrieved.overflow.count)
        .u64(0x04, retrieved.overflow.first)
        .u64(0x0c, retrieved.overflow.last)
        .u16(0x14, retrieved.records.len() as u16);
    let output = retrieved.records.iter().fold(header, |output, record| output.then(record));
    Ok(Answer::Done(output.into_bytes()))
}

/// 0101h Clear Event Records. Input: log, flags, count (1 each), reserved (3), handles (2 each). No output.
pub(super) fn clear_event_records(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    let Some(&[log, flags, count, ..]) = input.first_chunk::<6>() else {
        return Err(ReturnCode::InvalidPayloadLength);
    };
    expect_length(input, 6 + 2 * usize::from(count))?;
    let log = Log::from_id(log)?;
    if flags & CLEAR_ALL != 0 {
        device.logs.clear_all(log)?;
    } else {
        let handles: Vec<_> = input[6..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        device.logs.clear(log, &handles)?;
    }
    Ok(Answer::Done(Vec::new()))
}

/// 0102h Get Event Interrupt Policy. No input. Output: a byte each for information, warning, failure, fatal.
pub(super) fn get_event_interrupt_policy(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(device.logs.interrupt_policy().to_vec()))
}

/// 0103h Set Event Interrupt Policy. Input: as 0102h gives it, with or without a fifth byte for a dynamic capacity log.
/// The message numbers are the device's. No output.
pub(super) fn set_event_interrupt_policy(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    if !(4..=5).contains(&input.len()) {
        return Err(ReturnCode::InvalidPayloadLength);
    }
    let bytes: [u8; 4] = field(input, 0).ok_or(ReturnCode::InvalidPayloadLength)?;
    let mut modes = [InterruptMode::None; 4];
    for (mode, byte) in modes.iter_mut().zip(bytes) {
        *mode = InterruptMode::from_policy(byte)?;
    }
    device.logs.set_interrupt_policy(modes);
    Ok(Answer::Done(Vec::new()))
}
