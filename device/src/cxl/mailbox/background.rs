//! Generic component commands: Request Abort Background Operation (CXL 3.1, 8.2.10.1.5).

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::cxl::device_state::DeviceState;

/// 0005h Request Abort Background Operation. No input, no output.
///
/// Nothing under way is no error; an operation that cannot be stopped is Request Abort Not Supported.
pub(super) fn request_abort(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    device.background.request_abort()?;
    Ok(Answer::Done(Vec::new()))
}
