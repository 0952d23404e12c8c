//! Vendor commands: occupancy, and the watermarks. `docs/vendor-interface.md` is the specification.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::{
    cxl::{
        device_state::DeviceState,
        layout::{Layout, field},
    },
    hdm::media::{Media, MediaError, Threshold, Watermarks},
    store::Ratio,
};

/// "CRAM", least significant byte first.
const SIGNATURE: u32 = u32::from_le_bytes(*b"CRAM");
/// Raised when a field changes its meaning; new fields take reserved bytes.
const VERSION: u32 = 1;
/// Bytes of the occupancy structure.
pub(in crate::cxl) const OCCUPANCY_SIZE: usize = 0x80;

/// State flags: allocation is blocked; some data is poisoned.
const BLOCKED: u64 = 1 << 0;
const POISONED: u64 = 1 << 1;

/// The occupancy structure, after a flush: exact for every store the host made before, or as good as it can be had in time,
/// and says so.
pub(in crate::cxl) fn occupancy(media: &Media) -> [u8; OCCUPANCY_SIZE] {
    let occupancy = media.occupancy();
    let usage = occupancy.usage;
    let flag = |set: bool, flag: u64| if set { flag } else { 0 };
    let layout = Layout::zeroed(OCCUPANCY_SIZE)
        .u32(0x00, SIGNATURE)
        .u32(0x04, VERSION)
        .u64(0x08, occupancy.capacity)
        .u64(0x10, usage.physical)
        .u64(0x18, usage.used)
        .u64(0x20, usage.free())
        .u64(0x28, usage.data)
        .u64(0x30, usage.logical())
        .u32(0x38, usage.data_ratio().map_or(0, Ratio::per_mille))
        .u32(0x3c, usage.effective_ratio().map_or(0, Ratio::per_mille))
        .u64(0x40, occupancy.low_watermark)
        .u64(0x48, occupancy.high_watermark)
        .u64(0x50, flag(occupancy.blocked, BLOCKED) | flag(occupancy.poisoned > 0, POISONED))
        .u64(0x58, occupancy.poisoned)
        .u64(0x60, occupancy.overflows)
        .u64(0x68, media.resident().bytes)
        .u64(0x70, occupancy.lag);
    layout.array()
}

/// C000h Get Occupancy. No input. Output (80h): the occupancy structure.
pub(super) fn get_occupancy(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(occupancy(&device.media).to_vec()))
}

/// C001h Set Watermarks. Input: low (8), high (8), in bytes of free media. No output. A resulting crossing
/// is reported at once.
pub(super) fn set_watermarks(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 16)?;
    let number = |at| field(input, at).map(u64::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength);
    let watermarks = Watermarks { low: Threshold::Bytes(number(0)?), high: Threshold::Bytes(number(8)?) };
    match device.media.set_watermarks(watermarks) {
        Ok(()) => Ok(Answer::Done(Vec::new())),
        Err(MediaError::BadWatermarks { .. }) => Err(ReturnCode::InvalidInput),
        Err(_) => Err(ReturnCode::InternalError),
    }
}
