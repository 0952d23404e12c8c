//! Firmware (CXL 3.1, 8.2.10.3): there is one slot, which holds what runs, and nothing to update.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::cxl::{device_state::DeviceState, layout::Layout};

/// What Identify and Get FW Info call the running firmware: this crate's version, padded with zeros.
pub(super) fn revision() -> [u8; 16] {
    let mut revision = [0; 16];
    for (byte, letter) in revision.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *byte = letter;
    }
    revision
}

/// 0200h Get FW Info. No input. Output (50h): slots, active slot 2:0, capabilities, revision of slot 1.
pub(super) fn get_fw_info(_device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(Layout::zeroed(0x50).u8(0x00, 1).u8(0x01, 1).bytes(0x10, &revision()).into_bytes()))
}
