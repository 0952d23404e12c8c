//! Partitions (CXL 3.1, 8.2.10.9.2): everything is volatile, now and after the next reset.

use std::sync::Arc;

use super::{Answer, Outcome, expect_length};
use crate::{
    cxl::{device_state::DeviceState, layout::Layout},
    shape::CAPACITY_UNIT,
};

/// 4100h Get Partition Info. No input. Output (20h): active and next capacities in units of 256 MiB; next is 0 while no
/// change is pending.
pub(super) fn get_partition_info(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let units = device.media.capacity() / CAPACITY_UNIT;
    Ok(Answer::Done(Layout::zeroed(0x20).u64(0x00, units).into_bytes()))
}
