//! Data-at-rest security (CXL 3.1, 8.2.10.9.6): none, and the answer reports that. Linux queries it
//! before sanitizing and gives up without an answer (drivers/cxl/core/mbox.c).

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::cxl::device_state::DeviceState;

/// No passphrase is set, nothing is locked or frozen.
const DISABLED: u32 = 0;

/// 4500h Get Security State. No input. Output: state flags (4).
pub(super) fn get_security_state(_: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    Ok(Answer::Done(DISABLED.to_le_bytes().to_vec()))
}
