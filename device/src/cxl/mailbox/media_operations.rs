//! Media operations (CXL 3.1, 8.2.10.9.5.3): sanitize or zero ranges of DPA, and discover both operations.

use std::{ops::Range, sync::Arc};

use super::{Answer, Outcome, expect_length, return_code::ReturnCode, sanitize::wipe};
use crate::{
    cxl::{
        background::Job,
        device_state::DeviceState,
        layout::{Layout, field},
    },
    store::BLOCK_SIZE,
};

/// Bytes before the ranges: class, subclass, reserved (2), range count (4).
const HEADER: usize = 8;
/// Bytes of a range: DPA (8), length (8).
const RANGE: usize = 16;

const DISCOVERY: (u8, u8) = (0, 0);
const SANITIZE: (u8, u8) = (1, 0);
const ZERO: (u8, u8) = (1, 1);
/// What Discovery lists.
const OPERATIONS: [(u8, u8); 3] = [DISCOVERY, SANITIZE, ZERO];

/// 4402h Media Operations. Input: class, subclass, reserved (2), count (4), then ranges, or for Discovery the first
/// operation (2) and how many (2). Sanitize and Zero run in the background and have no output.
///
/// Ranges are whole blocks of 4096 bytes, the granularity that Discovery reports. A request without ranges is done at
/// once: this is how a host asks whether the operation is supported.
pub(super) fn media_operations(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    let Some(&[class, subclass, ..]) = input.first_chunk::<HEADER>() else {
        return Err(ReturnCode::InvalidPayloadLength);
    };
    let count = field(input, 4).map(u32::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength)?;
    match (class, subclass) {
        DISCOVERY => discovery(input, count),
        SANITIZE | ZERO => wipe_ranges(device, input, count),
        _ => Err(ReturnCode::Unsupported),
    }
}

fn discovery(input: &[u8], ranges: u32) -> Outcome {
    expect_length(input, HEADER + 4)?;
    let number = |at| field(input, at).map(u16::from_le_bytes).map(usize::from);
    let (first, count) = number(8).zip(number(10)).ok_or(ReturnCode::InvalidPayloadLength)?;
    if ranges != 0 || first > OPERATIONS.len() {
        return Err(ReturnCode::InvalidInput);
    }
    let listed: Vec<u8> = OPERATIONS.iter().skip(first).take(count).flat_map(|&(class, sub)| [class, sub]).collect();
    let header = Layout::zeroed(12)
        .u64(0x00, BLOCK_SIZE as u64)
        .u16(0x08, OPERATIONS.len() as u16)
        .u16(0x0a, (listed.len() / 2) as u16);
    Ok(Answer::Done(header.then(&listed).into_bytes()))
}

/// Both leave zeros: sanitized data cannot be had back from the medium either.
fn wipe_ranges(device: &Arc<DeviceState>, input: &[u8], count: u32) -> Outcome {
    let (ranges, []) = input[HEADER..].as_chunks::<RANGE>() else {
        return Err(ReturnCode::InvalidPayloadLength);
    };
    if ranges.len() != count as usize {
        return Err(ReturnCode::InvalidPayloadLength);
    }
    if device.media_is_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    let ranges = ranges.iter().map(|bytes| range(device, bytes)).collect::<Result<Vec<_>, _>>()?;
    if ranges.is_empty() {
        return Ok(Answer::Done(Vec::new()));
    }
    let device = Arc::clone(device);
    Ok(Answer::Background(Job::abortable(move |progress| wipe(&device, &ranges, progress))))
}

fn range(device: &DeviceState, bytes: &[u8; RANGE]) -> Result<Range<u64>, ReturnCode> {
    let number = |at| field(bytes, at).map(u64::from_le_bytes).ok_or(ReturnCode::InvalidInput);
    let (start, length) = (number(0)?, number(8)?);
    let whole = |bytes: u64| bytes.is_multiple_of(BLOCK_SIZE as u64);
    match start.checked_add(length) {
        _ if length == 0 || !whole(start) || !whole(length) => Err(ReturnCode::InvalidInput),
        Some(end) if end <= device.media.capacity() => Ok(start..end),
        _ => Err(ReturnCode::InvalidPhysicalAddress),
    }
}
