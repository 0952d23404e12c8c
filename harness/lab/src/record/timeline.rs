//! What happened when: the steps of the scenario, samples of the devices, and the scenario's own series.

use std::collections::BTreeMap;

use cxl_cram_device::control::api::Status;
use serde::{Deserialize, Serialize};

/// Samples kept of each device, and points of each series. A longer scenario is kept more coarsely.
pub(crate) const MOST: usize = 2000;

/// A step, from when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Since the devices were started.
    pub at_ms: u64,
    /// The step.
    pub step: String,
}

/// The state and counters of a device at one moment, in bytes unless the field says otherwise. Taken without a flush, so it
/// lags by the dirty bytes in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the devices were started.
    pub at_ms: u64,
    /// Media that exists.
    pub physical: u64,
    /// Media taken.
    pub used: u64,
    /// Host memory for maps and descriptors.
    pub metadata: u64,
    /// Decompressed bytes in the window.
    pub resident: u64,
    /// Free media at which the low watermark is crossed.
    pub low_watermark: u64,
    /// Free media at which the high watermark is crossed.
    pub high_watermark: u64,
    /// Between a low and the next high crossing.
    pub blocked: bool,
    /// Poisoned now.
    pub poisoned: u64,
    /// Pages asked of the store, since the start.
    pub faults: u64,
    /// Pages dropped to keep the window's bound, since the start.
    pub evicted: u64,
    /// Pages written back, since the start.
    pub written_back: u64,
    /// Low crossings since the start.
    pub low_crossings: u64,
    /// High crossings since the start.
    pub high_crossings: u64,
    /// MSI-X vectors that were signalled, with how often since the start.
    pub interrupts: BTreeMap<u32, u64>,
}

impl Sample {
    /// The sample of a status.
    pub(crate) fn new(at_ms: u64, status: Status) -> Self {
        Self {
            at_ms,
            physical: status.physical,
            used: status.used,
            metadata: status.metadata,
            resident: status.resident.bytes,
            low_watermark: status.low_watermark,
            high_watermark: status.high_watermark,
            blocked: status.blocked,
            poisoned: status.poisoned,
            faults: status.resident.faults,
            evicted: status.resident.evicted,
            written_back: status.resident.written_back,
            low_crossings: status.crossings.low,
            high_crossings: status.crossings.high,
            interrupts: status.interrupts,
        }
    }
}

impl Sample {
    /// With times from a moment on, and what is counted since the start counted from the sample before it.
    fn since(&self, before: &Self, from: u64) -> Self {
        let interrupts = self.interrupts.iter().map(|(vector, count)| {
            (*vector, count.saturating_sub(before.interrupts.get(vector).copied().unwrap_or(0)))
        });
        Self {
            at_ms: self.at_ms.saturating_sub(from),
            faults: self.faults.saturating_sub(before.faults),
            evicted: self.evicted.saturating_sub(before.evicted),
            written_back: self.written_back.saturating_sub(before.written_back),
            low_crossings: self.low_crossings.saturating_sub(before.low_crossings),
            high_crossings: self.high_crossings.saturating_sub(before.high_crossings),
            interrupts: interrupts.filter(|(_, count)| *count > 0).collect(),
            ..self.clone()
        }
    }
}

/// The course of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// The acts of a scenario that has several, in order: charts of two acts stand side by side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Mark>,
    /// The steps, in order.
    pub marks: Vec<Mark>,
    /// The samples of each device, in the scenario's order.
    pub devices: Vec<Vec<Sample>>,
    /// Values that the scenario recorded, by name: milliseconds since the devices were started, and the value then.
    pub series: BTreeMap<String, Vec<(u64, f64)>>,
}

impl Timeline {
    /// An act by itself: times count from its beginning. The last lasts to the end.
    pub fn act(&self, index: usize) -> Option<Self> {
        let (from, to) = (self.acts.get(index)?.at_ms, self.acts.get(index + 1).map_or(u64::MAX, |act| act.at_ms));
        let at = |at_ms: u64| at_ms - from;
        let within = |at_ms: u64| (from..to).contains(&at_ms);
        let marks = self.marks.iter().filter(|mark| within(mark.at_ms));
        let devices = self.devices.iter().map(|samples| {
            let before = samples.iter().take_while(|sample| sample.at_ms < from).last().cloned().unwrap_or_default();
            let samples = samples.iter().filter(|sample| within(sample.at_ms));
            samples.map(|sample| sample.since(&before, from)).collect()
        });
        let series = self.series.iter().map(|(name, points)| {
            let points = points.iter().filter(|(at_ms, _)| within(*at_ms));
            (name.clone(), points.map(|(at_ms, value)| (at(*at_ms), *value)).collect())
        });
        Some(Self {
            acts: Vec::new(),
            marks: marks.map(|mark| Mark { at_ms: at(mark.at_ms), step: mark.step.clone() }).collect(),
            devices: devices.collect(),
            series: series.filter(|(_, points): &(_, Vec<_>)| !points.is_empty()).collect(),
        })
    }
}

/// Drops every other entry.
pub(crate) fn halve<T>(entries: &mut Vec<T>) {
    let mut keep = false;
    entries.retain(|_| {
        keep = !keep;
        keep
    });
}
