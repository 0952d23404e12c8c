//! Identify Memory Device (CXL 3.1, 8.2.10.9.1.1).

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, poison};
use crate::{
    cxl::{device_state::DeviceState, events::EventLogs, layout::Layout},
    hdm::media::Media,
    shape::CAPACITY_UNIT,
};

/// Poison capabilities: injected poison is forgotten with the power, and a scan reports every event.
const POISON_CAPABILITIES: u8 = 0;

/// 4000h Identify Memory Device. No input. Output (45h): firmware, capacities, event log sizes, poison limits.
///
/// All capacity is volatile, and there is nothing to partition; there is no label storage.
pub(super) fn identify_memory_device(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let units = device.media.capacity() / CAPACITY_UNIT;
    let log_size = EventLogs::CAPACITY as u16;
    let output = Layout::zeroed(0x45)
        .bytes(0x00, &device.firmware.lock().running())
        .u64(0x10, units)
        .u64(0x18, units)
        .u16(0x30, log_size)
        .u16(0x32, log_size)
        .u16(0x34, log_size)
        .u16(0x36, log_size)
        .u24(0x3c, poison::MAX_RECORDS)
        .u16(0x3f, Media::MAX_INJECTED as u16)
        .u8(0x41, POISON_CAPABILITIES);
    Ok(Answer::Done(output.into_bytes()))
}
