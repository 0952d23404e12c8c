//! Media operations, and the background protocol they run by.

use super::driver::{
    ABORTED, BACKGROUND_STARTED, BUSY, CAPACITY, Device, INVALID_INPUT, INVALID_PAYLOAD_LENGTH,
    INVALID_PHYSICAL_ADDRESS, MIB, PAGE, SILENCE, SUCCESS, UNSUPPORTED, u16_at, u64_at, wait_until, words,
};

pub(crate) const MEDIA_OPERATIONS: u16 = 0x4402;
const ABORT: u16 = 0x0005;
const MAILBOX_VECTOR: u16 = 7;
const DISCOVERY: [u8; 2] = [0, 0];
const SANITIZE: [u8; 2] = [1, 0];
const ZERO: [u8; 2] = [1, 1];

/// The input of an operation on ranges of (DPA, length).
fn ranges(operation: [u8; 2], ranges: &[(u64, u64)]) -> Vec<u8> {
    let header = [operation[0], operation[1], 0, 0];
    let count = (ranges.len() as u32).to_le_bytes();
    let ranges: Vec<u8> = ranges.iter().flat_map(|&(dpa, length)| words(&[dpa, length])).collect();
    [&header[..], &count, &ranges].concat()
}

pub(crate) fn zero(dpa: u64, length: u64) -> Vec<u8> {
    ranges(ZERO, &[(dpa, length)])
}

fn discover(device: &Device, first: u16, count: u16) -> (u16, Vec<u8>) {
    let header = [DISCOVERY[0], DISCOVERY[1], 0, 0, 0, 0, 0, 0];
    device.run(MEDIA_OPERATIONS, &[&header[..], &first.to_le_bytes(), &count.to_le_bytes()].concat())
}

#[test]
fn an_operation_without_ranges_succeeds_at_once_if_it_is_supported() {
    let device = Device::new();
    for operation in [ZERO, SANITIZE] {
        assert_eq!(device.run(MEDIA_OPERATIONS, &ranges(operation, &[])), (SUCCESS, vec![]));
    }
    assert_eq!(device.background(), (0, 0, 0), "nothing went to the background");
    for unknown in [[0, 1], [1, 2], [2, 0], [255, 255]] {
        assert_eq!(device.code(MEDIA_OPERATIONS, &ranges(unknown, &[])), UNSUPPORTED, "{unknown:?}");
    }
}

#[test]
fn discovery_lists_three_operations_in_any_parts() {
    let device = Device::new();
    let (code, output) = discover(&device, 0, 10);
    assert_eq!((code, u64_at(&output, 0)), (SUCCESS, PAGE), "granularity");
    assert_eq!((u16_at(&output, 8), u16_at(&output, 10)), (3, 3));
    assert_eq!(output[12..], [DISCOVERY, SANITIZE, ZERO].concat());
    let (code, output) = discover(&device, 1, 1);
    assert_eq!((code, u16_at(&output, 8), u16_at(&output, 10)), (SUCCESS, 3, 1));
    assert_eq!(output[12..], SANITIZE);
    assert_eq!(discover(&device, 3, 1).1.len(), 12, "none after the last");
    assert_eq!(discover(&device, 4, 1).0, INVALID_INPUT);
    assert_eq!(discover(&device, u16::MAX, u16::MAX).0, INVALID_INPUT);
    assert_eq!(device.code(MEDIA_OPERATIONS, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]), INVALID_INPUT, "with a range");
}

#[test]
fn zero_frees_the_media_of_its_ranges_and_no_other() {
    let device = Device::new();
    device.fill(0..96);
    let data = device.media.occupancy().usage.data;
    device.output(0x4301, &(40 * PAGE).to_le_bytes());
    device.output(0x4301, &(80 * PAGE).to_le_bytes());
    let input = ranges(ZERO, &[(0, 32 * PAGE), (40 * PAGE, 8 * PAGE)]);
    assert_eq!(device.run(MEDIA_OPERATIONS, &input), (BACKGROUND_STARTED, vec![]));
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!(device.media.occupancy().usage.data, data - 40 * PAGE);
    for block in 0..96 {
        let zeroed = block < 32 || (40..48).contains(&block);
        assert_eq!(device.load(block * PAGE) == [0; PAGE as usize], zeroed, "block {block}");
    }
    let poisoned: Vec<_> = device.media.poison_list(0..CAPACITY).iter().map(|record| record.dpa).collect();
    assert_eq!(poisoned, [80 * PAGE], "the poison of a zeroed range is cleared");
    device.run(MEDIA_OPERATIONS, &zero(0, CAPACITY));
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!((device.used(), device.media.occupancy().poisoned), (0, 0));
}

#[test]
fn sanitize_of_a_range_leaves_nothing_of_it_either() {
    let device = Device::new();
    device.fill(0..8);
    device.run(MEDIA_OPERATIONS, &ranges(SANITIZE, &[(0, 4 * PAGE)]));
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!(device.load(3 * PAGE), [0; PAGE as usize]);
    assert_eq!(device.load(4 * PAGE), super::driver::noise(4));
}

#[test]
fn bad_ranges_are_refused_and_nothing_is_zeroed() {
    let device = Device::new();
    device.fill(0..2);
    for (dpa, length, code) in [
        (0, 0, INVALID_INPUT),
        (1, PAGE, INVALID_INPUT),
        (64, PAGE, INVALID_INPUT),
        (0, PAGE + 64, INVALID_INPUT),
        (CAPACITY, PAGE, INVALID_PHYSICAL_ADDRESS),
        (0, CAPACITY + PAGE, INVALID_PHYSICAL_ADDRESS),
        (CAPACITY - PAGE, 2 * PAGE, INVALID_PHYSICAL_ADDRESS),
        (u64::MAX - PAGE + 1, PAGE, INVALID_PHYSICAL_ADDRESS),
        (PAGE, u64::MAX - PAGE + 1, INVALID_PHYSICAL_ADDRESS),
    ] {
        // A good range before the bad one does not help it.
        let input = ranges(ZERO, &[(0, PAGE), (dpa, length)]);
        assert_eq!(device.code(MEDIA_OPERATIONS, &input), code, "{dpa:#x}+{length:#x}");
    }
    assert!(!device.background_runs());
    assert_eq!(device.load(0), super::driver::noise(0));
}

#[test]
fn the_length_must_fit_the_count_of_ranges() {
    let device = Device::new();
    let good = zero(0, PAGE);
    for cut in 0..good.len() {
        assert_eq!(device.code(MEDIA_OPERATIONS, &good[..cut]), INVALID_PAYLOAD_LENGTH, "{cut} bytes");
    }
    assert_eq!(device.code(MEDIA_OPERATIONS, &[&good[..], &[0]].concat()), INVALID_PAYLOAD_LENGTH);
    assert_eq!(device.code(MEDIA_OPERATIONS, &[&good[..], &[0; 16]].concat()), INVALID_PAYLOAD_LENGTH);
    for count in [0_u32, 2, u32::MAX] {
        let mut wrong = good.clone();
        wrong[4..8].copy_from_slice(&count.to_le_bytes());
        assert_eq!(device.code(MEDIA_OPERATIONS, &wrong), INVALID_PAYLOAD_LENGTH, "{count} ranges");
    }
    // The most that a payload holds.
    let most = ranges(ZERO, &[(0, PAGE); 127]);
    assert_eq!(device.code(MEDIA_OPERATIONS, &most), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
}

#[test]
fn progress_goes_up_and_reaches_100_only_at_the_end() {
    let device = Device::new();
    let held = device.hold_background();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, CAPACITY)), BACKGROUND_STARTED);
    assert!(device.background_runs());
    let (opcode, percent, code) = device.background();
    assert_eq!((opcode, code), (MEDIA_OPERATIONS, 0));
    assert!(percent < 100);
    assert_eq!(device.code(0x4000, &[]), SUCCESS, "other commands go on");
    assert_eq!(device.background().0, MEDIA_OPERATIONS, "and leave the background status alone");
    drop(held);
    let mut last = percent;
    wait_until(|| {
        let (_, percent, _) = device.background();
        assert!(percent >= last, "{percent} after {last}");
        last = percent;
        percent == 100
    });
    assert_eq!(device.background(), (MEDIA_OPERATIONS, 100, SUCCESS));
    assert!(!device.background_runs());
}

#[test]
fn a_second_background_operation_is_busy_while_one_runs() {
    let device = Device::new();
    let held = device.hold_background();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BUSY);
    assert_eq!(device.code(0x4400, &[]), BUSY);
    assert_eq!(device.code(0x4304, &[0; 17]), BUSY);
    drop(held);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
}

#[test]
fn an_aborted_operation_ends_as_aborted_and_leaves_the_rest_alone() {
    let device = Device::new();
    let last = CAPACITY / PAGE - 1;
    device.fill(last..last + 1);
    let held = device.hold_background();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, CAPACITY)), BACKGROUND_STARTED);
    assert_eq!(device.code(ABORT, &[]), SUCCESS);
    drop(held);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), ABORTED);
    assert_eq!(device.load(last * PAGE), super::driver::noise(last));
    assert_eq!(device.code(ABORT, &[]), SUCCESS, "nothing under way is no error");
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS, "the next one is not aborted");
}

#[test]
fn completion_interrupts_once_and_only_when_it_is_enabled() {
    let device = Device::new();
    let zero_a_page = || {
        assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
        assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    };
    zero_a_page();
    device.enable_background_interrupt(true);
    // Linux enables it once and then rings the doorbell with nothing else set.
    for turn in 1..=3 {
        zero_a_page();
        wait_until(|| device.bell.count(MAILBOX_VECTOR) == turn);
    }
    device.enable_background_interrupt(false);
    // Operations run one after the other: when the second has ended, the first has interrupted or never will.
    zero_a_page();
    zero_a_page();
    assert_eq!(device.bell.count(MAILBOX_VECTOR), 3);
}

#[test]
fn an_undelivered_completion_is_raised_when_the_vector_is_armed() {
    let device = Device::new();
    device.enable_background_interrupt(true);
    device.bell.listen(false);
    for _ in 0..2 {
        device.code(MEDIA_OPERATIONS, &zero(0, MIB));
        assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    }
    // The worker may be about to raise it: armed before or after, it is raised.
    device.bell.listen(true);
    wait_until(|| {
        device.type3.vector_armed(MAILBOX_VECTOR);
        device.bell.count(MAILBOX_VECTOR) > 0
    });
    device.bell.take();
    device.type3.vector_armed(MAILBOX_VECTOR);
    assert_eq!(device.bell.take(), SILENCE, "not twice");
}

#[test]
fn a_reset_stops_a_background_operation_and_forgets_it() {
    let device = Device::new();
    let last = CAPACITY / PAGE - 1;
    device.fill(last..last + 1);
    let held = device.hold_background();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, CAPACITY)), BACKGROUND_STARTED);
    std::thread::scope(|scope| {
        // The reset waits for the operation, which waits for the gate.
        scope.spawn(|| device.type3.reset());
        drop(held);
    });
    assert_eq!(device.background(), (0, 0, 0));
    assert!(!device.background_runs());
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
}
