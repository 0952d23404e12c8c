//! `query-poison`, `inject-poison`, `clear-poison`. Addresses are DPA.

use std::ops::Range;

use serde_json::{Value, json};

use super::{Arguments, CommandError, DeviceCommands, nothing};
use crate::hdm::media::{LINE_SIZE, Media, PoisonRecord, PoisonSource};

/// Records in one answer of `query-poison`.
const MAX_RECORDS: usize = 1024;

/// Bytes one `clear-poison` may cover, so that it does not keep the others waiting.
const MAX_CLEAR: u64 = 1 << 20;

/// `start`, `length`, both optional: the poisoned runs of a range, in order. `more` tells where to go on.
pub(super) fn query(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let start = arguments.optional_bytes("start")?.unwrap_or(0);
    let length = arguments.optional_bytes("length")?.unwrap_or(u64::MAX);
    arguments.finish()?;
    let capacity = device.media.capacity();
    let range = start.min(capacity)..start.saturating_add(length).min(capacity);
    let records = device.media.poison_list(range);
    let listed: Vec<Value> = records.iter().take(MAX_RECORDS).map(record).collect();
    let more = records.get(MAX_RECORDS).map(|next| next.dpa);
    Ok(json!({ "records": listed, "more": more }))
}

fn record(record: &PoisonRecord) -> Value {
    let source = match record.source {
        PoisonSource::Unknown => "unknown",
        PoisonSource::External => "external",
        PoisonSource::Internal => "internal",
        PoisonSource::Injected => "injected",
        PoisonSource::Vendor => "vendor",
    };
    json!({ "start": record.dpa, "length": record.length, "source": source })
}

/// `start` (or `dpa`), `length`: poisons whole lines.
pub(super) fn inject(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let range = lines(device, arguments)?;
    if (range.end - range.start) / LINE_SIZE > Media::MAX_INJECTED as u64 {
        let most = Media::MAX_INJECTED as u64 * LINE_SIZE;
        return Err(CommandError::generic(format!(
            "at most {most} bytes can hold injected poison; give a shorter length"
        )));
    }
    for dpa in range.step_by(LINE_SIZE as usize) {
        device.media.inject_poison(dpa)?;
    }
    Ok(nothing())
}

/// `start` (or `dpa`), `length`: the lines of the range that are poisoned read as zeros from now on.
pub(super) fn clear(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let range = lines(device, arguments)?;
    if range.end - range.start > MAX_CLEAR {
        return Err(CommandError::generic(format!("at most {MAX_CLEAR} bytes at a time; give a shorter length")));
    }
    for record in device.media.poison_list(range) {
        for dpa in (record.dpa..record.dpa + record.length).step_by(LINE_SIZE as usize) {
            device.media.clear_poison(dpa, &[0; LINE_SIZE as usize])?;
        }
    }
    Ok(nothing())
}

/// A range of whole lines inside the capacity. `path` is taken and ignored: it is in QEMU's command.
fn lines(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Range<u64>, CommandError> {
    arguments.take("path");
    let start = match arguments.optional_bytes("dpa")? {
        Some(dpa) => dpa,
        None => arguments.bytes("start")?,
    };
    let length = arguments.bytes("length")?;
    arguments.finish()?;
    let capacity = device.media.capacity();
    let end = start.checked_add(length).filter(|end| *end <= capacity);
    match end {
        Some(end) if length > 0 && start % LINE_SIZE == 0 && length % LINE_SIZE == 0 => Ok(start..end),
        _ => Err(CommandError::generic(format!(
            "start and length are multiples of {LINE_SIZE}, length is not 0, and the range ends inside the capacity ({capacity} bytes)"
        ))),
    }
}
