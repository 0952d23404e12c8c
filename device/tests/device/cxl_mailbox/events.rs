//! Event logs: records come out in order, are cleared in order, and are announced once.

use cxl_cram_device::{cxl::Injector, hdm::media::Crossing};

use super::driver::{
    CAPACITY, DEVICE_STATUS, Device, INVALID_HANDLE, INVALID_INPUT, INVALID_PAYLOAD_LENGTH, LINE, PAGE, SILENCE,
    u16_at, u64_at,
};

pub(crate) const INFORMATION: u8 = 0;
pub(crate) const WARNING: u8 = 1;
pub(crate) const FAILURE: u8 = 2;

pub(crate) const GENERAL_MEDIA: [u8; 16] =
    [0xfb, 0xcd, 0x0a, 0x77, 0xc2, 0x60, 0x41, 0x7f, 0x85, 0xa9, 0x08, 0x8b, 0x16, 0x21, 0xeb, 0xa6];
pub(crate) const MEMORY_MODULE: [u8; 16] =
    [0xfe, 0x92, 0x74, 0x75, 0xdd, 0x59, 0x43, 0x39, 0xa5, 0x86, 0x79, 0xba, 0xb1, 0x13, 0xb7, 0x74];

const VECTOR: [u16; 4] = [2, 3, 4, 5];

/// What Get Event Records gives.
pub(crate) struct Records {
    pub(crate) overflowed: bool,
    pub(crate) more: bool,
    pub(crate) dropped: u16,
    pub(crate) first_dropped: u64,
    pub(crate) last_dropped: u64,
    pub(crate) records: Vec<[u8; 128]>,
}

impl Records {
    pub(crate) fn handles(&self) -> Vec<u16> {
        self.records.iter().map(|record| u16_at(record, 0x14)).collect()
    }
}

pub(crate) fn get(device: &Device, log: u8) -> Records {
    let output = device.output(0x0100, &[log]);
    let (records, rest) = output[0x20..].as_chunks::<128>();
    assert_eq!((records.len(), rest.len()), (usize::from(u16_at(&output, 0x14)), 0));
    Records {
        overflowed: output[0] & 1 != 0,
        more: output[0] & 2 != 0,
        dropped: u16_at(&output, 2),
        first_dropped: u64_at(&output, 4),
        last_dropped: u64_at(&output, 0x0c),
        records: records.to_vec(),
    }
}

fn clear(device: &Device, log: u8, handles: &[u16]) -> u16 {
    let handles: Vec<u8> = handles.iter().flat_map(|handle| handle.to_le_bytes()).collect();
    device.code(0x0101, &[&[log, 0, (handles.len() / 2) as u8, 0, 0, 0], &handles[..]].concat())
}

fn clear_all(device: &Device, log: u8) -> u16 {
    device.code(0x0101, &[log, 1, 0, 0, 0, 0])
}

/// `count` information records, each for a line of its own.
fn inform(device: &Device, count: u64) {
    for line in 0..count {
        device.output(0x4301, &(line % 200 * LINE).to_le_bytes());
    }
}

fn interrupts_on(device: &Device) {
    device.output(0x0103, &[1, 1, 1, 1]);
    device.bell.take();
}

#[test]
fn records_come_oldest_first_and_stay_until_they_are_cleared() {
    let device = Device::new();
    device.output(0x0301, &1_000_000_u64.to_le_bytes());
    inform(&device, 3);
    let first = get(&device, INFORMATION);
    assert!(!first.more && !first.overflowed);
    assert_eq!(get(&device, INFORMATION).records, first.records);
    let addresses: Vec<_> = first.records.iter().map(|record| u64_at(record, 0x30) & !0x3f).collect();
    assert_eq!(addresses, [0, LINE, 2 * LINE]);
    for record in &first.records {
        assert_eq!(record[..16], GENERAL_MEDIA);
        assert_eq!(record[0x10], 128, "length");
        assert_eq!(record[0x11] & 3, INFORMATION, "severity");
        assert!(u64_at(record, 0x18) >= 1_000_000, "timestamp");
        assert_eq!(record[0x3a], 4, "transaction type: host inject poison");
    }
    let handles = first.handles();
    assert!(!handles.contains(&0));
    assert_eq!(clear(&device, INFORMATION, &handles[..2]), 0);
    assert_eq!(get(&device, INFORMATION).handles(), handles[2..]);
    assert_eq!(clear(&device, INFORMATION, &handles[2..]), 0);
    assert!(get(&device, INFORMATION).records.is_empty());
}

#[test]
fn only_the_oldest_records_in_order_can_be_cleared() {
    let device = Device::new();
    inform(&device, 3);
    let handles = get(&device, INFORMATION).handles();
    let unknown = handles[2] + 1;
    for wrong in [
        vec![handles[1]],
        vec![handles[1], handles[0]],
        vec![handles[0], handles[0]],
        vec![unknown],
        vec![0],
        vec![handles[0], handles[1], handles[2], unknown],
    ] {
        assert_eq!(clear(&device, INFORMATION, &wrong), INVALID_HANDLE, "{wrong:?}");
        assert_eq!(get(&device, INFORMATION).handles(), handles, "nothing was cleared");
    }
    assert_eq!(clear(&device, WARNING, &handles), INVALID_HANDLE, "another log's handles");
    assert_eq!(clear(&device, INFORMATION, &handles), 0);
    assert_eq!(clear(&device, INFORMATION, &handles), INVALID_HANDLE, "stale handles");
}

#[test]
fn the_count_of_handles_must_match_the_length() {
    let device = Device::new();
    inform(&device, 2);
    for (count, bytes) in [(0, 2), (1, 0), (1, 1), (1, 4), (2, 2), (255, 4)] {
        let input = [&[INFORMATION, 0, count, 0, 0, 0][..], &vec![1; bytes]].concat();
        assert_eq!(device.code(0x0101, &input), INVALID_PAYLOAD_LENGTH, "{count} handles in {bytes} bytes");
    }
    assert_eq!(get(&device, INFORMATION).records.len(), 2);
}

#[test]
fn more_records_than_one_payload_holds_are_announced_as_more() {
    let device = Device::new();
    inform(&device, 40);
    let mut seen = Vec::new();
    loop {
        let batch = get(&device, INFORMATION);
        assert_eq!(batch.more, seen.len() + batch.records.len() < 40);
        seen.extend(batch.handles());
        assert_eq!(clear(&device, INFORMATION, &batch.handles()), 0);
        if !batch.more {
            break;
        }
    }
    assert_eq!(seen.len(), 40);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_full_log_keeps_the_oldest_and_counts_what_it_drops() {
    let device = Device::new();
    device.output(0x0301, &5_000_u64.to_le_bytes());
    inform(&device, 256);
    assert!(!get(&device, INFORMATION).overflowed);
    let oldest = get(&device, INFORMATION).handles();
    inform(&device, 1);
    let one = get(&device, INFORMATION);
    assert!(one.overflowed && one.dropped == 1 && one.first_dropped == one.last_dropped);
    inform(&device, 9);
    let ten = get(&device, INFORMATION);
    assert_eq!((ten.overflowed, ten.dropped, ten.first_dropped), (true, 10, one.first_dropped));
    assert!(ten.first_dropped >= 5_000 && ten.last_dropped > ten.first_dropped);
    assert_eq!(ten.handles(), oldest);
    assert_eq!(clear(&device, INFORMATION, &oldest), 0);
    let after = get(&device, INFORMATION);
    assert_eq!((after.overflowed, after.dropped, after.last_dropped), (false, 0, 0));
}

#[test]
fn all_records_at_once_may_be_cleared_only_after_an_overflow() {
    let device = Device::new();
    assert_eq!(clear_all(&device, INFORMATION), INVALID_INPUT);
    inform(&device, 256);
    assert_eq!(clear_all(&device, INFORMATION), INVALID_INPUT);
    assert!(get(&device, INFORMATION).more);
    inform(&device, 1);
    assert_eq!(clear_all(&device, INFORMATION), 0);
    let empty = get(&device, INFORMATION);
    assert!(empty.records.is_empty() && !empty.overflowed);
}

#[test]
fn a_log_that_is_not_there_is_an_invalid_input() {
    let device = Device::new();
    for log in [4, 5, 255] {
        assert_eq!(device.code(0x0100, &[log]), INVALID_INPUT);
        assert_eq!(clear(&device, log, &[]), INVALID_INPUT);
        assert_eq!(clear_all(&device, log), INVALID_INPUT);
    }
}

#[test]
fn the_event_status_register_has_a_bit_for_each_log_that_holds_records() {
    let device = Device::new();
    let status = device.capability(DEVICE_STATUS);
    assert_eq!(device.read64(status), 0);
    inform(&device, 1);
    assert_eq!(device.read64(status), 1 << INFORMATION);
    device.type3.inject_crossing(Crossing::Low);
    assert_eq!(device.read64(status), 1 << INFORMATION | 1 << WARNING);
    clear(&device, INFORMATION, &get(&device, INFORMATION).handles());
    assert_eq!(device.read64(status), 1 << WARNING);
}

#[test]
fn a_log_interrupts_when_it_gets_its_first_record_and_not_again_before_it_is_empty() {
    let device = Device::new();
    inform(&device, 1);
    assert_eq!(device.bell.take(), SILENCE, "no interrupts were requested");
    clear(&device, INFORMATION, &get(&device, INFORMATION).handles());
    interrupts_on(&device);
    inform(&device, 5);
    assert_eq!(device.bell.take(), [VECTOR[0]]);
    let handles = get(&device, INFORMATION).handles();
    clear(&device, INFORMATION, &handles[..4]);
    inform(&device, 1);
    assert_eq!(device.bell.take(), SILENCE, "the log was not empty");
    clear(&device, INFORMATION, &get(&device, INFORMATION).handles());
    inform(&device, 1);
    assert_eq!(device.bell.take(), [VECTOR[0]]);
}

#[test]
fn each_log_interrupts_by_its_own_policy() {
    let device = Device::new();
    device.output(0x0103, &[0, 1, 0, 0]);
    inform(&device, 1);
    assert_eq!(device.bell.take(), SILENCE);
    device.type3.inject_crossing(Crossing::Low);
    assert_eq!(device.bell.count(VECTOR[1]), 1);
    assert_eq!(device.output(0x0102, &[]), [0x20, 0x31, 0x40, 0x50]);
}

#[test]
fn a_policy_with_firmware_interrupts_is_refused_whole() {
    let device = Device::new();
    device.output(0x0103, &[1, 0, 1, 0]);
    for refused in [[2, 0, 0, 0], [0, 0, 0, 2], [1, 3, 1, 1]] {
        assert_eq!(device.code(0x0103, &refused), INVALID_INPUT);
    }
    assert_eq!(device.output(0x0102, &[]), [0x21, 0x30, 0x41, 0x50], "the policy stays as it was");
    device.output(0x0103, &[0, 1, 0, 1, 0]);
    assert_eq!(device.output(0x0102, &[]), [0x20, 0x31, 0x40, 0x51], "five bytes: with dynamic capacity");
}

#[test]
fn records_that_wait_are_announced_when_their_vector_is_armed() {
    let device = Device::new();
    interrupts_on(&device);
    device.bell.listen(false);
    inform(&device, 2);
    device.bell.listen(true);
    assert_eq!(device.bell.take(), SILENCE);
    device.type3.vector_armed(VECTOR[1]);
    assert_eq!(device.bell.take(), SILENCE, "that log is empty");
    device.type3.vector_armed(VECTOR[0]);
    assert_eq!(device.bell.take(), [VECTOR[0]]);
    clear(&device, INFORMATION, &get(&device, INFORMATION).handles());
    device.type3.vector_armed(VECTOR[0]);
    assert_eq!(device.bell.take(), SILENCE, "nothing waits any more");
}

#[test]
fn a_block_that_does_not_fit_is_a_failure_event_at_its_address() {
    let device = Device::with_physical(64 * PAGE);
    interrupts_on(&device);
    device.fill(0..70);
    let lost: Vec<_> = device.media.poison_list(0..CAPACITY).iter().map(|record| record.dpa).collect();
    let failures = get(&device, FAILURE);
    assert!(!failures.records.is_empty());
    assert_eq!(u64_at(&failures.records[0], 0x30) & !0x3f, lost[0]);
    for record in &failures.records {
        assert_eq!(record[..16], GENERAL_MEDIA);
        assert_eq!(record[0x11] & 3, FAILURE);
        assert_eq!(u64_at(record, 0x30) & 0x3f, 1, "volatile");
        assert_eq!((record[0x38] & 1, record[0x39], record[0x3a]), (1, 2, 6), "uncorrectable, data path, internal");
    }
    assert_eq!(failures.records.len() as u64, device.media.occupancy().overflows);
    assert_eq!(device.bell.count(VECTOR[2]), 1, "a storm is one interrupt");
}

#[test]
fn handles_go_round_without_a_zero() {
    let device = Device::new();
    let mut last = 0_u16;
    for turn in 0..70_000_u32 {
        device.type3.inject_crossing(Crossing::High);
        let handles = get(&device, INFORMATION).handles();
        assert_eq!(handles.len(), 1);
        assert_eq!(handles[0], last.checked_add(1).unwrap_or(1), "turn {turn}");
        last = handles[0];
        assert_eq!(clear(&device, INFORMATION, &handles), 0);
    }
}
