//! The Label Storage Area (CXL 3.1, 8.2.10.9.2.3): absent, because there is no persistent capacity. Identify
//! reports a size of 0, so every non-empty range is Invalid Input.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{device_state::DeviceState, layout::field};

/// 4102h Get LSA. Input: offset (4), length (4). Output: the bytes.
pub(super) fn get_lsa(_device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 8)?;
    nothing_at(input, field(input, 4).map(u32::from_le_bytes))
}

/// 4103h Set LSA. Input: offset (4), reserved (4), the bytes. No output.
pub(super) fn set_lsa(_device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    nothing_at(input, input.len().checked_sub(8).map(|length| length as u32))
}

fn nothing_at(input: &[u8], length: Option<u32>) -> Outcome {
    let offset = field(input, 0).map(u32::from_le_bytes);
    match offset.zip(length).ok_or(ReturnCode::InvalidPayloadLength)? {
        (0, 0) => Ok(Answer::Done(Vec::new())),
        _ => Err(ReturnCode::InvalidInput),
    }
}
