//! Alert configuration (CXL 3.1, 8.2.10.9.3.2): thresholds that the host may program. They are kept; an emulated device
//! never gets hot or worn, so none of them ever fires.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{
    device_state::DeviceState,
    layout::{Layout, field},
};

/// Warnings that can be programmed: life used, over-temperature, under-temperature, corrected volatile errors.
const PROGRAMMABLE: u8 = 0b0_1111;

/// What cannot be programmed: critical thresholds.
const LIFE_USED_CRITICAL: u8 = 75;
const OVER_TEMPERATURE_CRITICAL: u16 = 70;
const UNDER_TEMPERATURE_CRITICAL: u16 = 0;

/// The thresholds that can be programmed, and which of them are enabled.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cxl) struct AlertConfig {
    enabled: u8,
    life_used: u8,
    over_temperature: u16,
    under_temperature: u16,
    corrected_volatile: u16,
}

/// 4201h Get Alert Configuration. No input. Output (10h): enabled, programmable, critical and warning thresholds.
pub(super) fn get_alert_configuration(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let alerts = *device.alerts.lock();
    let output = Layout::zeroed(0x10)
        .u8(0x00, alerts.enabled)
        .u8(0x01, PROGRAMMABLE)
        .u8(0x02, LIFE_USED_CRITICAL)
        .u8(0x03, alerts.life_used)
        .u16(0x04, OVER_TEMPERATURE_CRITICAL)
        .u16(0x06, UNDER_TEMPERATURE_CRITICAL)
        .u16(0x08, alerts.over_temperature)
        .u16(0x0a, alerts.under_temperature)
        .u16(0x0c, alerts.corrected_volatile);
    Ok(Answer::Done(output.into_bytes()))
}

/// 4202h Set Alert Configuration. Input (0Ch): which are valid, which to enable, thresholds. No output.
///
/// A threshold that cannot be programmed, or lies beyond its critical one, is Invalid Input, and nothing changes.
pub(super) fn set_alert_configuration(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0x0c)?;
    let (valid, enable, life_used) = (input[0], input[1], input[2]);
    let threshold = |at| field(input, at).map(u16::from_le_bytes).ok_or(ReturnCode::InvalidPayloadLength);
    let (over, under, corrected) = (threshold(4)?, threshold(6)?, threshold(8)?);
    let chosen = |bit: u8| valid & 1 << bit != 0;
    let enabled = |bit: u8| chosen(bit) && enable & 1 << bit != 0;
    // Temperatures are signed: the critical ones bound the warnings.
    let beyond = enabled(0) && life_used >= LIFE_USED_CRITICAL
        || enabled(1) && over as i16 >= OVER_TEMPERATURE_CRITICAL as i16
        || enabled(2) && (under as i16) <= UNDER_TEMPERATURE_CRITICAL as i16;
    if valid & !PROGRAMMABLE != 0 || beyond {
        return Err(ReturnCode::InvalidInput);
    }
    let mut alerts = device.alerts.lock();
    alerts.enabled = alerts.enabled & !valid | enable & valid;
    if chosen(0) {
        alerts.life_used = life_used;
    }
    if chosen(1) {
        alerts.over_temperature = over;
    }
    if chosen(2) {
        alerts.under_temperature = under;
    }
    if chosen(3) {
        alerts.corrected_volatile = corrected;
    }
    Ok(Answer::Done(Vec::new()))
}
