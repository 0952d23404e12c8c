//! Device health (CXL 3.1, 8.2.10.9.3.1).
//!
//! A device whose free media is below the low watermark reports "maintenance needed": the host has to make room. An unpatched
//! kernel can decode that status, both in the health information and in the event record of a crossing.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::cxl::{device_state::DeviceState, event_record::Health};

/// Health status: maintenance needed.
const MAINTENANCE_NEEDED: u8 = 1 << 0;
/// Degrees Celsius of an emulated device.
const TEMPERATURE: i16 = 25;

/// The health of a device whose allocation is `blocked`: between a low and the next high crossing.
pub(in crate::cxl) fn health(blocked: bool) -> Health {
    Health { status: if blocked { MAINTENANCE_NEEDED } else { 0 }, temperature: TEMPERATURE, ..Health::default() }
}

/// 4200h Get Health Info. No input. Output (12h): [`Health`].
pub(super) fn get_health_info(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(health(device.media.occupancy_now().blocked).to_bytes().to_vec()))
}
