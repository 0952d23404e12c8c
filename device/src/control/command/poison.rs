//! `query-poison`, `inject-poison`, `clear-poison`. Addresses are DPA.

use std::ops::Range;

use super::{CommandError, DeviceCommands, Execute, api};
use crate::hdm::media::{LINE_SIZE, Media, PoisonRecord};

/// Records in one answer of `query-poison`.
const MAX_RECORDS: usize = 1024;

/// Bytes one `clear-poison` may cover, so that it does not keep the others waiting.
const MAX_CLEAR: u64 = 1 << 20;

impl Execute for api::QueryPoison {
    fn execute(self, device: &DeviceCommands) -> Result<api::PoisonList, CommandError> {
        let capacity = device.capacity();
        let end = self.start.saturating_add(self.length.unwrap_or(u64::MAX));
        let page = device.poison_page(self.start.min(capacity)..end.min(capacity), MAX_RECORDS);
        let run =
            |record: PoisonRecord| api::PoisonRun { start: record.dpa, length: record.length, source: record.source };
        Ok(api::PoisonList { records: page.records.into_iter().map(run).collect(), more: page.rest })
    }
}

impl Execute for api::InjectPoison {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let range = lines(device, self.start, self.length)?;
        if self.length / LINE_SIZE > Media::MAX_INJECTED as u64 {
            let most = Media::MAX_INJECTED as u64 * LINE_SIZE;
            return Err(CommandError::generic(format!(
                "at most {most} bytes can hold injected poison; give a shorter length"
            )));
        }
        for dpa in range.step_by(LINE_SIZE as usize) {
            device.inject_poison(dpa)?;
        }
        Ok(api::Done {})
    }
}

impl Execute for api::ClearPoison {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let range = lines(device, self.start, self.length)?;
        if self.length > MAX_CLEAR {
            return Err(CommandError::generic(format!("at most {MAX_CLEAR} bytes at a time; give a shorter length")));
        }
        for record in device.poison_list(range) {
            for dpa in (record.dpa..record.dpa + record.length).step_by(LINE_SIZE as usize) {
                device.clear_poison(dpa)?;
            }
        }
        Ok(api::Done {})
    }
}

/// A range of whole lines inside the capacity.
fn lines(device: &DeviceCommands, start: u64, length: u64) -> Result<Range<u64>, CommandError> {
    let capacity = device.capacity();
    let end = start.checked_add(length).filter(|end| *end <= capacity);
    match end {
        Some(end) if length > 0 && start.is_multiple_of(LINE_SIZE) && length.is_multiple_of(LINE_SIZE) => {
            Ok(start..end)
        }
        _ => Err(CommandError::generic(format!(
            "start and length are multiples of {LINE_SIZE}, length is not 0, and the range ends inside the capacity ({capacity} bytes)"
        ))),
    }
}
