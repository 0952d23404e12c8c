//! Poison (CXL 3.1, 8.2.10.9.4): list, inject, clear, scan. Addresses are DPA; lengths are in units of 64 bytes.

use std::{ops::Range, sync::Arc};

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::{
    cxl::{
        background::Job,
        device_state::DeviceState,
        event_record::{Record, Transaction},
        events::Log,
        layout::{Layout, field},
    },
    hdm::media::{LINE_SIZE, MediaError, PoisonPage, PoisonRecord},
};

/// Records that the list holds, as reported by Identify. Linux reads no more than this either (`CXL_POISON_LIST_MAX`). Poison
/// beyond them is not listed, and the list is marked as overflowed.
pub(super) const MAX_RECORDS: u32 = 1024;

/// Bytes before the first record of a list.
const HEADER: usize = 0x20;
/// Bytes of a record: address with the source in bits 2:0, length, reserved.
const RECORD: usize = 0x10;
/// Records that fit in one payload.
fn records_that_fit(device: &DeviceState) -> usize {
    (device.payload_size.bytes() - HEADER) / RECORD
}

const MORE_RECORDS: u8 = 1 << 0;
const OVERFLOW: u8 = 1 << 1;
const SCAN_IN_PROGRESS: u8 = 1 << 2;
const SCAN_STOPPED: u8 = 1 << 1;

/// Bytes a scan looks at between two reports.
const SCAN_STEP: u64 = 256 << 20;
/// Records a scan keeps before it stops.
const SCAN_RECORDS: usize = 4096;

/// How far the host has read a list that needs several commands.
#[derive(Debug, Default)]
pub(in crate::cxl) struct ListCursor(Option<Position>);

#[derive(Debug)]
struct Position {
    /// The range the host asked for.
    asked: Range<u64>,
    /// The address at which to continue.
    next: u64,
    /// Records given so far.
    given: usize,
}

/// What the last scan found and the host has not fetched.
#[derive(Debug, Default)]
pub(in crate::cxl) struct ScanResults {
    /// A scan ended since the last fetch.
    ended: bool,
    records: Vec<PoisonRecord>,
    /// What was not looked at.
    rest: Range<u64>,
}

/// The DPA range of an input that begins with address (8) and length (8), inside the capacity.
fn range(device: &DeviceState, input: &[u8]) -> Result<Range<u64>, ReturnCode> {
    let number = |at| field(input, at).map(u64::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength);
    let (start, lines) = (number(0)?, number(8)?);
    let end = lines.checked_mul(LINE_SIZE).and_then(|length| start.checked_add(length));
    match end {
        _ if !start.is_multiple_of(LINE_SIZE) => Err(ReturnCode::InvalidInput),
        Some(end) if end <= device.media.capacity() => Ok(start..end),
        _ => Err(ReturnCode::InvalidPhysicalAddress),
    }
}

/// The address of an input that begins with one, a line inside the capacity.
fn line(device: &DeviceState, input: &[u8]) -> Result<u64, ReturnCode> {
    let dpa = field(input, 0).map(u64::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength)?;
    if dpa >= device.media.capacity() {
        Err(ReturnCode::InvalidPhysicalAddress)
    } else if !dpa.is_multiple_of(LINE_SIZE) {
        Err(ReturnCode::InvalidInput)
    } else {
        Ok(dpa)
    }
}

/// What the medium's refusal is in a mailbox.
fn refused(error: &MediaError) -> ReturnCode {
    match error {
        MediaError::BadRange { .. } => ReturnCode::InvalidPhysicalAddress,
        MediaError::PoisonListFull => ReturnCode::InjectPoisonLimitReached,
        MediaError::BadWatermarks { .. } | MediaError::Store(_) => ReturnCode::PermanentMediaFailure,
    }
}

/// Adds records to a list's header.
fn with_records(header: Layout, records: &[PoisonRecord]) -> Vec<u8> {
    records
        .iter()
        .fold(header, |output, record| {
            let lines = u32::try_from(record.length / LINE_SIZE).unwrap_or(u32::MAX);
            let bytes = Layout::zeroed(RECORD).u64(0x00, record.dpa | record.source as u64).u32(0x08, lines);
            output.then(&bytes.into_bytes())
        })
        .into_bytes()
}

/// 4300h Get Poison List. Input: address (8), length (8). Output: flags, overflow time, count, records.
///
/// A list that is too long for one payload sets the "more" flag. The same input then returns the next records.
pub(super) fn get_poison_list(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 16)?;
    if device.media_is_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    let asked = range(device, input)?;
    let mut cursor = device.poison_list.lock();
    let (from, given) = match cursor.0.take() {
        Some(position) if position.asked == asked => (position.next, position.given),
        _ => (asked.start, 0),
    };
    let left = MAX_RECORDS as usize - given;
    let PoisonPage { mut records, mut rest } = device.media.poison_page(from..asked.end, left);
    let (mut flags, mut overflowed) = (0, 0);
    if records.len() == left && rest.take().is_some() {
        flags |= OVERFLOW;
        overflowed = device.timestamp.now();
    }
    let fit = records_that_fit(device);
    if let Some(next) = records.get(fit) {
        rest = Some(next.dpa);
        records.truncate(fit);
    }
    if let Some(next) = rest {
        flags |= MORE_RECORDS;
        cursor.0 = Some(Position { asked, next, given: given + records.len() });
    }
    if device.background.running_opcode() == Some(SCAN_MEDIA) {
        flags |= SCAN_IN_PROGRESS;
    }
    let header = Layout::zeroed(HEADER).u8(0x00, flags).u64(0x02, overflowed).u16(0x0a, records.len() as u16);
    Ok(Answer::Done(with_records(header, &records)))
}

/// 4301h Inject Poison. Input: address (8). No output. Logs an informational event.
pub(super) fn inject_poison(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 8)?;
    if device.media_is_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    let dpa = line(device, input)?;
    device.media.inject_poison(dpa).map_err(|error| refused(&error))?;
    device.log(Log::Information, Record::lost(dpa, Transaction::HostInjectPoison));
    Ok(Answer::Done(Vec::new()))
}

/// 4302h Clear Poison. Input: address (8), the 64 bytes to write. No output.
pub(super) fn clear_poison(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 8 + LINE_SIZE as usize)?;
    if device.media_is_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    let dpa = line(device, input)?;
    let data = field(input, 8).ok_or(ReturnCode::InvalidPayloadLength)?;
    device.media.clear_poison(dpa, &data).map_err(|error| refused(&error))?;
    Ok(Answer::Done(Vec::new()))
}

/// The opcode of Scan Media.
pub(super) const SCAN_MEDIA: u16 = 0x4304;

/// 4303h Get Scan Media Capabilities. Input: address (8), length (8). Output: estimated milliseconds (4).
///
/// The device knows its poison without scanning, so the estimate is 0 ms.
pub(super) fn get_scan_media_capabilities(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 16)?;
    range(device, input)?;
    Ok(Answer::Done(0_u32.to_le_bytes().to_vec()))
}

/// 4304h Scan Media, in the background. Input: address (8), length (8), flags (1). Results by 4305h.
///
/// What the window holds goes to the medium first: a block that does not fit is found by the scan, not after it.
pub(super) fn scan_media(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 17)?;
    if device.media_is_disabled() {
        return Err(ReturnCode::MediaDisabled);
    }
    let asked = range(device, input)?;
    let device = Arc::clone(device);
    Ok(Answer::Background(Job::abortable(move |progress| {
        device.media.flush_unless(&|| progress.aborted());
        let mut results = ScanResults { ended: true, records: Vec::new(), rest: asked.clone() };
        while !results.rest.is_empty() && results.records.len() < SCAN_RECORDS && !progress.aborted() {
            let step = results.rest.start..results.rest.end.min(results.rest.start.saturating_add(SCAN_STEP));
            let found = device.media.poison_page(step.clone(), SCAN_RECORDS - results.records.len());
            // If the results are full, the host continues from the first record that did not fit.
            results.rest.start = found.rest.unwrap_or(step.end);
            results.records.extend(found.records);
            progress.report(results.rest.start - asked.start, asked.end - asked.start);
        }
        *device.scan.lock() = results;
        if progress.aborted() { ReturnCode::Aborted } else { ReturnCode::Success }
    })))
}

/// 4305h Get Scan Media Results. No input. Output: where to continue (address, length), flags, count, records.
///
/// Without a scan that has ended it is Unsupported, as after its last results were fetched.
pub(super) fn get_scan_media_results(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let mut results = device.scan.lock();
    if !results.ended {
        return Err(ReturnCode::Unsupported);
    }
    let count = results.records.len().min(records_that_fit(device));
    let records: Vec<_> = results.records.drain(..count).collect();
    let mut flags = 0;
    if !results.records.is_empty() {
        flags |= MORE_RECORDS;
    }
    if !results.rest.is_empty() {
        flags |= SCAN_STOPPED;
    }
    let header = Layout::zeroed(HEADER)
        .u64(0x00, results.rest.start)
        .u64(0x08, (results.rest.end - results.rest.start) / LINE_SIZE)
        .u8(0x10, flags)
        .u16(0x12, records.len() as u16);
    if results.records.is_empty() {
        *results = ScanResults::default();
    }
    Ok(Answer::Done(with_records(header, &records)))
}
