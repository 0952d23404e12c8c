//! Event logs (CXL 3.1, 8.2.10.2): four bounded logs of 128-byte records, and the interrupts that announce them.
//!
//! A full log drops what comes and counts it. A log interrupts when it gets its first record, not again before it was
//! emptied: a storm of events is one interrupt.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{event_record::Record, mailbox::return_code::ReturnCode, vectors};

/// A log, by severity. The values are those of the mailbox commands and the bits of the Event Status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Expected, for the record.
    #[serde(rename = "informational")]
    Information = 0,
    /// May need attention.
    Warning = 1,
    /// Data was lost.
    Failure = 2,
    /// The device is lost.
    Fatal = 3,
}

impl Log {
    pub(super) const ALL: [Log; 4] = [Log::Information, Log::Warning, Log::Failure, Log::Fatal];

    /// The log a command names. The dynamic capacity log (4) is absent.
    pub(super) fn from_id(id: u8) -> Result<Self, ReturnCode> {
        Self::ALL.get(usize::from(id)).copied().ok_or(ReturnCode::InvalidInput)
    }

    /// Its interrupt message number.
    fn vector(self) -> u16 {
        match self {
            Log::Information => vectors::EVENT_INFORMATION,
            Log::Warning => vectors::EVENT_WARNING,
            Log::Failure => vectors::EVENT_FAILURE,
            Log::Fatal => vectors::EVENT_FATAL,
        }
    }
}

/// How a log interrupts: bits 1:0 of its policy byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InterruptMode {
    /// Not at all.
    #[default]
    None = 0,
    /// MSI or MSI-X.
    Msix = 1,
}

impl InterruptMode {
    /// Firmware notification (2) is not supported: it needs a VDM that the link here does not carry.
    pub(super) fn from_policy(byte: u8) -> Result<Self, ReturnCode> {
        match byte & 3 {
            0 => Ok(Self::None),
            1 => Ok(Self::Msix),
            _ => Err(ReturnCode::InvalidInput),
        }
    }
}

/// Records that a full log dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overflow {
    /// Records dropped; stays at its maximum.
    pub(super) count: u16,
    /// Timestamp of the first one.
    pub(super) first: u64,
    /// Timestamp of the last one.
    pub(super) last: u64,
}

/// The result of Get Event Records.
pub(super) struct Retrieved {
    /// The oldest records.
    pub(super) records: Vec<[u8; Record::SIZE]>,
    /// The log holds more records.
    pub(super) more: bool,
    /// Records that were dropped.
    pub(super) overflow: Overflow,
}

#[derive(Default)]
struct EventLog {
    records: VecDeque<(u16, Record)>,
    last_handle: u16,
    overflow: Overflow,
    mode: InterruptMode,
}

impl EventLog {
    /// Handles are never 0 (that is "none") and differ among the records held.
    fn next_handle(&mut self) -> u16 {
        self.last_handle = self.last_handle.checked_add(1).unwrap_or(1);
        self.last_handle
    }
}

/// The four logs.
#[derive(Default)]
pub(super) struct EventLogs(Mutex<[EventLog; 4]>);

impl EventLogs {
    /// Records each log holds.
    pub(super) const CAPACITY: usize = 256;

    /// Adds a record. Returns the vector to raise, if the log was empty and interrupts.
    pub(super) fn append(&self, log: Log, record: Record, timestamp: u64) -> Option<u16> {
        let entry = &mut self.0.lock()[log as usize];
        if entry.records.len() >= Self::CAPACITY {
            let overflow = &mut entry.overflow;
            if overflow.count == 0 {
                overflow.first = timestamp;
            }
            overflow.last = timestamp;
            overflow.count = overflow.count.saturating_add(1);
            return None;
        }
        let was_empty = entry.records.is_empty();
        let handle = entry.next_handle();
        entry.records.push_back((handle, record.stamped(log, handle, timestamp)));
        (was_empty && entry.mode == InterruptMode::Msix).then(|| log.vector())
    }

    /// The Event Status register: one bit a log that holds records.
    pub(super) fn status_register(&self) -> u32 {
        let logs = self.0.lock();
        Log::ALL
            .iter()
            .filter(|&&log| !logs[log as usize].records.is_empty())
            .fold(0, |bits, &log| bits | 1 << log as u32)
    }

    /// The oldest `max` records; they stay until they are cleared.
    pub(super) fn get(&self, log: Log, max: usize) -> Retrieved {
        let entry = &self.0.lock()[log as usize];
        Retrieved {
            records: entry.records.iter().take(max).map(|(_, record)| record.to_bytes()).collect(),
            more: entry.records.len() > max,
            overflow: entry.overflow,
        }
    }

    /// Clears records, which must be the oldest ones, in order; otherwise nothing is cleared.
    pub(super) fn clear(&self, log: Log, handles: &[u16]) -> Result<(), ReturnCode> {
        let entry = &mut self.0.lock()[log as usize];
        let oldest = entry.records.iter().map(|&(handle, _)| handle);
        if handles.len() > entry.records.len() || !oldest.take(handles.len()).eq(handles.iter().copied()) {
            return Err(ReturnCode::InvalidHandle);
        }
        entry.records.drain(..handles.len());
        if !handles.is_empty() {
            entry.overflow = Overflow::default();
        }
        Ok(())
    }

    /// Clears a whole log. Only a log that has overflowed may be cleared so: in any other the host would clear records
    /// it has not seen.
    pub(super) fn clear_all(&self, log: Log) -> Result<(), ReturnCode> {
        let entry = &mut self.0.lock()[log as usize];
        if entry.overflow.count == 0 {
            return Err(ReturnCode::InvalidInput);
        }
        entry.records.clear();
        entry.overflow = Overflow::default();
        Ok(())
    }

    /// The policy bytes: mode 1:0, message number 7:4.
    pub(super) fn interrupt_policy(&self) -> [u8; 4] {
        let logs = self.0.lock();
        Log::ALL.map(|log| logs[log as usize].mode as u8 | (log.vector() as u8) << 4)
    }

    /// Sets how each log interrupts.
    pub(super) fn set_interrupt_policy(&self, modes: [InterruptMode; 4]) {
        for (entry, mode) in self.0.lock().iter_mut().zip(modes) {
            entry.mode = mode;
        }
    }

    /// Whether a log that interrupts with this vector holds records.
    pub(super) fn wants(&self, vector: u16) -> bool {
        let logs = self.0.lock();
        Log::ALL.iter().any(|&log| {
            let entry = &logs[log as usize];
            log.vector() == vector && entry.mode == InterruptMode::Msix && !entry.records.is_empty()
        })
    }

    /// Power cycle: no records. Handles continue, so that a stale one clears nothing.
    pub(super) fn forget(&self) {
        for entry in self.0.lock().iter_mut() {
            entry.records.clear();
            entry.overflow = Overflow::default();
        }
    }
}
