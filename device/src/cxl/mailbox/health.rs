//! Device health (CXL 3.1, 8.2.10.9.3.1).
//!
//! A device whose free media is below the low watermark says "maintenance needed": the host has to make room. That is
//! what an unpatched kernel can decode of it, in the health information and in the event record of a crossing.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::cxl::{device_state::DeviceState, layout::Layout};

/// Health status: maintenance needed.
const MAINTENANCE_NEEDED: u8 = 1 << 0;
/// Degrees Celsius of an emulated device.
const TEMPERATURE: u16 = 25;

/// The health information, as it stands in the command's output and in Memory Module event records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cxl) struct HealthInfo {
    blocked: bool,
}

impl HealthInfo {
    /// Of a device whose allocation is `blocked`: between a low and the next high crossing.
    pub(in crate::cxl) fn new(blocked: bool) -> Self {
        Self { blocked }
    }

    /// Health status, media status, additional status, life used (1 each), temperature (2), dirty shutdowns (4),
    /// corrected volatile and persistent errors (4 each).
    pub(in crate::cxl) fn to_bytes(self) -> Vec<u8> {
        let status = if self.blocked { MAINTENANCE_NEEDED } else { 0 };
        Layout::zeroed(0x12).u8(0x00, status).u16(0x04, TEMPERATURE).into_bytes()
    }
}

/// 4200h Get Health Info. No input. Output (12h): [`HealthInfo`].
pub(super) fn get_health_info(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(HealthInfo::new(device.media.occupancy_now().blocked).to_bytes()))
}
