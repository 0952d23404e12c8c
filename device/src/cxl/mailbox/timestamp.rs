//! The timestamp (CXL 3.1, 8.2.10.4): nanoseconds as the host set them, 0 until then.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{device_state::DeviceState, layout::field};

/// The device's clock.
#[derive(Debug, Default)]
pub(in crate::cxl) struct Timestamp(Mutex<Option<(u64, Instant)>>);

impl Timestamp {
    /// Nanoseconds since 1970 if the host set them so, 0 if it set nothing.
    pub(in crate::cxl) fn now(&self) -> u64 {
        match *self.0.lock() {
            Some((set, at)) => set.saturating_add(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            None => 0,
        }
    }

    fn set(&self, nanoseconds: u64) {
        *self.0.lock() = Some((nanoseconds, Instant::now()));
    }

    /// Time without a host's word is no time.
    pub(in crate::cxl) fn reset(&self) {
        *self.0.lock() = None;
    }
}

/// 0300h Get Timestamp. No input. Output: nanoseconds (8).
pub(super) fn get_timestamp(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(device.timestamp.now().to_le_bytes().to_vec()))
}

/// 0301h Set Timestamp. Input: nanoseconds (8). No output.
pub(super) fn set_timestamp(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 8)?;
    device.timestamp.set(u64::from_le_bytes(field(input, 0).ok_or(ReturnCode::InvalidPayloadLength)?));
    Ok(Answer::Done(Vec::new()))
}
