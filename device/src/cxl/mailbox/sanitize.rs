//! Sanitize (CXL 3.1, 8.2.10.9.5.1): all data gone, the media disabled meanwhile.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use super::{Answer, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{
    background::{Job, Progress},
    device_state::DeviceState,
};

/// Bytes wiped between two reports.
const STEP: u64 = 64 << 20;

/// 4400h Sanitize, in the background. No input, no output. Only a reset stops it.
///
/// If it does not finish, the media stays disabled: the remaining data must not be read.
pub(super) fn sanitize(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let device = Arc::clone(device);
    let job = Job::unstoppable(move |progress| {
        let everything = 0..device.media.capacity();
        let code = wipe(&device, std::slice::from_ref(&everything), progress);
        device.media_disabled.store(code != ReturnCode::Success, Ordering::Release);
        code
    });
    Ok(Answer::Background(job.with_media_disabled()))
}

/// Zeroes ranges step by step.
pub(super) fn wipe(device: &DeviceState, ranges: &[Range<u64>], progress: &Progress<'_>) -> ReturnCode {
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let mut done = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            if progress.aborted() {
                return ReturnCode::Aborted;
            }
            let end = range.end.min(at.saturating_add(STEP));
            if let Err(error) = device.media.zero(at..end) {
                tracing::error!(%error, "cannot zero {at:#x}..{end:#x}");
                return ReturnCode::PermanentMediaFailure;
            }
            done += end - at;
            at = end;
            progress.report(done, total);
        }
    }
    ReturnCode::Success
}
