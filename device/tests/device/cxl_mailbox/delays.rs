//! Commands that are late on request.
//!
//! What holds during a delay is looked at in the longest there is, which only an abort, a reset or the device's end cuts
//! short. What holds after one is looked at after a short one.

use std::{
    thread,
    time::{Duration, Instant},
};

use cxl_cram_device::cxl::{
    Injector,
    delay::{CommandDelay, DelayError, MAX_DELAY, Phase},
    failure::CommandFailure,
};

use super::{
    driver::{
        ABORT_NOT_SUPPORTED, ABORTED, BACKGROUND_STARTED, BUSY, CAPACITY, COMMAND, CONTROL, DOORBELL, Device, LINE,
        MEDIA_DISABLED, PAGE, PAYLOAD, PRIMARY_MAILBOX, SILENCE, SUCCESS, noise, wait_until,
    },
    media_operations::{MEDIA_OPERATIONS, zero},
};

const ABORT: u16 = 0x0005;
const IDENTIFY: u16 = 0x4000;
const INJECT_POISON: u16 = 0x4301;
const SCAN_MEDIA: u16 = 0x4304;
const SANITIZE: u16 = 0x4400;
const INTERNAL_ERROR: u16 = 0x04;
const MAILBOX_VECTOR: u16 = 7;
/// Long enough for a test to store a block meanwhile, also on a busy machine.
const A_MOMENT: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(50);

impl Device {
    /// The next such command is late.
    fn delay(&self, opcode: u16, phase: Phase, by: Duration) {
        assert_eq!(self.type3.delay_command(CommandDelay { opcode, by, phase, count: 1 }), Ok(0));
    }
}

/// Does this, which must not last as long as the delay that it ends.
fn promptly(action: impl FnOnce()) {
    let begun = Instant::now();
    action();
    assert!(begun.elapsed() < MAX_DELAY / 10, "the delay went on");
}

#[test]
fn a_late_zero_wipes_what_was_stored_meanwhile() {
    let device = Device::new();
    device.fill(0..2);
    device.enable_background_interrupt(true);
    device.delay(MEDIA_OPERATIONS, Phase::Background, A_MOMENT);
    let begun = Instant::now();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    // An operation that did not wait has ended by then.
    thread::sleep(SHORT);
    device.media.store(0, &noise(7));
    assert_eq!(device.load(0), noise(7));
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert!(begun.elapsed() >= A_MOMENT);
    assert_eq!(device.load(0), [0; PAGE as usize]);
    assert_eq!(device.load(PAGE), noise(1));
    wait_until(|| device.bell.count(MAILBOX_VECTOR) == 1);
}

#[test]
fn a_late_operation_runs_until_it_is_aborted() {
    let device = Device::new();
    device.fill(0..1);
    device.enable_background_interrupt(true);
    device.delay(MEDIA_OPERATIONS, Phase::Background, MAX_DELAY);
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, CAPACITY)), BACKGROUND_STARTED);
    assert!(device.background_runs());
    assert_eq!(device.background(), (MEDIA_OPERATIONS, 0, 0));
    for (opcode, input) in [(MEDIA_OPERATIONS, zero(0, PAGE)), (SANITIZE, vec![]), (SCAN_MEDIA, vec![0; 17])] {
        assert_eq!(device.code(opcode, &input), BUSY, "{opcode:#06x}");
    }
    assert_eq!(device.code(IDENTIFY, &[]), SUCCESS, "other commands go on");
    assert_eq!(device.bell.take(), SILENCE);
    promptly(|| {
        assert_eq!(device.code(ABORT, &[]), SUCCESS);
        assert_eq!(device.wait_background(MEDIA_OPERATIONS), ABORTED);
    });
    wait_until(|| device.bell.count(MAILBOX_VECTOR) == 1);
    assert_eq!(device.load(0), noise(0), "an aborted Zero wipes nothing");
}

#[test]
fn a_reset_cancels_a_late_operation() {
    let device = Device::new();
    device.fill(0..1);
    device.enable_background_interrupt(true);
    device.delay(MEDIA_OPERATIONS, Phase::Background, MAX_DELAY);
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, CAPACITY)), BACKGROUND_STARTED);
    promptly(|| device.type3.reset());
    assert_eq!(device.background(), (0, 0, 0));
    assert!(!device.background_runs());
    assert_eq!(device.load(0), noise(0), "it never ran");
    promptly(|| {
        assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
        assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    });
}

#[test]
fn the_media_stays_disabled_during_a_late_sanitize_and_after_the_reset_that_cancels_it() {
    let device = Device::new();
    device.delay(SANITIZE, Phase::Background, MAX_DELAY);
    assert_eq!(device.code(SANITIZE, &[]), BACKGROUND_STARTED);
    assert_eq!(device.code(INJECT_POISON, &[0; 8]), MEDIA_DISABLED);
    assert_eq!(device.code(ABORT, &[]), ABORT_NOT_SUPPORTED);
    assert_eq!(device.background(), (SANITIZE, 0, 0));
    promptly(|| device.type3.reset());
    assert_eq!(device.code(INJECT_POISON, &[0; 8]), MEDIA_DISABLED, "Sanitize did not finish");
}

#[test]
fn only_commands_that_start_an_operation_are_late_in_the_background() {
    let device = Device::new();
    device.delay(MEDIA_OPERATIONS, Phase::Background, SHORT);
    assert_eq!(device.code(MEDIA_OPERATIONS, &[1, 1, 0, 0, 0, 0, 0, 0]), SUCCESS, "of no range");
    let begun = Instant::now();
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn a_late_command_leaves_the_doorbell_set_until_it_is_done() {
    let device = Device::new();
    device.delay(INJECT_POISON, Phase::Doorbell, SHORT);
    let begun = Instant::now();
    device.ring(INJECT_POISON, &(4 * PAGE).to_le_bytes());
    wait_until(|| !device.doorbell());
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(device.outcome(INJECT_POISON), (SUCCESS, vec![]));
    assert_eq!(device.media.poison_list(0..CAPACITY)[0].dpa, 4 * PAGE);
    assert_eq!(device.code(INJECT_POISON, &(8 * PAGE).to_le_bytes()), SUCCESS, "only one was to be late");
}

#[test]
fn a_late_command_may_go_on_in_the_background() {
    let device = Device::new();
    device.fill(0..1);
    device.delay(MEDIA_OPERATIONS, Phase::Doorbell, SHORT);
    let begun = Instant::now();
    device.ring(MEDIA_OPERATIONS, &zero(0, PAGE));
    wait_until(|| !device.doorbell());
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(device.outcome(MEDIA_OPERATIONS), (BACKGROUND_STARTED, vec![]));
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!(device.load(0), [0; PAGE as usize]);
}

#[test]
fn the_mailbox_takes_no_writes_while_the_doorbell_is_set_and_a_reset_clears_it() {
    let device = Device::new();
    let mailbox = device.capability(PRIMARY_MAILBOX);
    device.enable_background_interrupt(true);
    device.delay(INJECT_POISON, Phase::Doorbell, MAX_DELAY);
    let registers =
        || (device.read32(mailbox + CONTROL), device.read64(mailbox + COMMAND), device.read64(mailbox + PAYLOAD));
    promptly(|| {
        device.ring(INJECT_POISON, &LINE.to_le_bytes());
        assert!(device.doorbell());
        let rung = registers();
        assert_eq!((rung.1 as u16, rung.2), (INJECT_POISON, LINE));
        device.write64(mailbox + PAYLOAD, u64::MAX);
        device.write64(mailbox + COMMAND, u64::from(IDENTIFY));
        for control in [DOORBELL, 0, u32::MAX] {
            device.write32(mailbox + CONTROL, control);
        }
        assert_eq!(registers(), rung);
        device.type3.reset();
    });
    assert_eq!(registers(), (0, 0, 0));
    assert_eq!(device.media.poison_list(0..CAPACITY), [], "it never ran");
    assert_eq!(device.code(INJECT_POISON, &LINE.to_le_bytes()), SUCCESS, "the next one is not late");
}

#[test]
fn the_end_of_the_device_ends_its_delays() {
    let device = Device::new();
    device.fill(0..1);
    device.delay(MEDIA_OPERATIONS, Phase::Background, MAX_DELAY);
    device.delay(INJECT_POISON, Phase::Doorbell, MAX_DELAY);
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    device.ring(INJECT_POISON, &(4 * PAGE).to_le_bytes());
    let Device { type3, media, .. } = device;
    promptly(|| drop(type3));
    let mut block = [0; PAGE as usize];
    media.load(0, &mut block);
    assert_eq!(block, noise(0));
    assert_eq!(media.poison_list(0..CAPACITY), []);
}

#[test]
fn a_command_can_be_late_and_then_fail() {
    let device = Device::new();
    device.fill(0..1);
    let fail = |opcode, background| {
        let failure = CommandFailure { opcode, return_code: INTERNAL_ERROR, count: 1, background };
        assert_eq!(device.type3.fail_command(failure), Ok(0));
    };
    fail(IDENTIFY, false);
    device.delay(IDENTIFY, Phase::Doorbell, SHORT);
    let begun = Instant::now();
    device.ring(IDENTIFY, &[]);
    wait_until(|| !device.doorbell());
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(device.outcome(IDENTIFY), (INTERNAL_ERROR, vec![]));
    for (delay, end) in [(SHORT, INTERNAL_ERROR), (MAX_DELAY, ABORTED)] {
        fail(MEDIA_OPERATIONS, true);
        device.delay(MEDIA_OPERATIONS, Phase::Background, delay);
        promptly(|| {
            let begun = Instant::now();
            assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
            if end == ABORTED {
                assert_eq!(device.code(ABORT, &[]), SUCCESS);
            }
            assert_eq!(device.wait_background(MEDIA_OPERATIONS), end);
            assert!(end == ABORTED || begun.elapsed() >= delay);
        });
    }
    assert_eq!(device.load(0), noise(0));
}

#[test]
fn a_new_request_replaces_or_ends_the_earlier_one_and_returns_what_was_left() {
    let device = Device::new();
    let request =
        |phase, by, count| device.type3.delay_command(CommandDelay { opcode: MEDIA_OPERATIONS, by, phase, count });
    assert_eq!(request(Phase::Background, SHORT, 5), Ok(0));
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    device.type3.reset();
    device.type3.power_on();
    assert_eq!(request(Phase::Doorbell, MAX_DELAY, u64::MAX), Ok(4), "neither reset nor power takes it away");
    device.ring(MEDIA_OPERATIONS, &zero(0, PAGE));
    assert!(device.doorbell());
    assert_eq!(request(Phase::Doorbell, MAX_DELAY, 0), Ok(u64::MAX - 1));
    assert!(device.doorbell(), "what is late already stays so");
    assert_eq!(request(Phase::Background, SHORT, 0), Ok(0));
    promptly(|| device.type3.reset());
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
}

#[test]
fn what_cannot_be_late_is_refused() {
    let device = Device::new();
    let (none, too_long) = (Duration::ZERO, MAX_DELAY + Duration::from_millis(1));
    for (opcode, phase, by, error) in [
        (0x4001, Phase::Doorbell, SHORT, DelayError::Unknown(0x4001)),
        (IDENTIFY, Phase::Background, SHORT, DelayError::NotInBackground(IDENTIFY)),
        (IDENTIFY, Phase::Doorbell, none, DelayError::OutOfRange(none)),
        (MEDIA_OPERATIONS, Phase::Background, too_long, DelayError::OutOfRange(too_long)),
        (IDENTIFY, Phase::Doorbell, Duration::MAX, DelayError::OutOfRange(Duration::MAX)),
    ] {
        assert_eq!(device.type3.delay_command(CommandDelay { opcode, by, phase, count: 1 }), Err(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(device.code(IDENTIFY, &[]), SUCCESS);
}
