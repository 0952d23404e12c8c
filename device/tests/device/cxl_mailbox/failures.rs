//! Commands that fail on request.

use cxl_cram_device::cxl::{
    Injector,
    failure::{CommandFailure, FailureError},
};

use super::{
    driver::{BACKGROUND_STARTED, Device, PAGE, SUCCESS, noise},
    media_operations::{MEDIA_OPERATIONS, zero},
};

const IDENTIFY: u16 = 0x4000;
const INTERNAL_ERROR: u16 = 0x04;
const MEDIA_FAILURE: u16 = 0x11;

fn failure(opcode: u16, return_code: u16, count: u64, background: bool) -> CommandFailure {
    CommandFailure { opcode, return_code, count, background }
}

#[test]
fn as_many_commands_as_requested_fail_and_no_other() {
    let device = Device::new();
    assert_eq!(device.type3.fail_command(failure(IDENTIFY, INTERNAL_ERROR, 2, false)), Ok(0));
    for _ in 0..2 {
        assert_eq!(device.code(0x4100, &[]), SUCCESS, "another command goes on");
        assert_eq!(device.run(IDENTIFY, &[]), (INTERNAL_ERROR, vec![]));
    }
    assert!(!device.output(IDENTIFY, &[]).is_empty());
}

#[test]
fn a_command_that_fails_is_not_executed() {
    let device = Device::new();
    device.fill(0..1);
    assert_eq!(device.type3.fail_command(failure(MEDIA_OPERATIONS, MEDIA_FAILURE, 1, false)), Ok(0));
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), MEDIA_FAILURE);
    assert_eq!(device.background(), (0, 0, 0), "nothing went to the background");
    assert_eq!(device.load(0), noise(0));
}

#[test]
fn a_background_operation_that_fails_does_nothing_and_ends_with_the_code() {
    let device = Device::new();
    device.fill(0..1);
    assert_eq!(device.type3.fail_command(failure(MEDIA_OPERATIONS, INTERNAL_ERROR, 1, true)), Ok(0));
    let (nothing, page) = ([1, 1, 0, 0, 0, 0, 0, 0], zero(0, PAGE));
    assert_eq!(device.code(MEDIA_OPERATIONS, &nothing), SUCCESS, "of no range it starts none, and is not counted");
    assert_eq!(device.code(MEDIA_OPERATIONS, &page), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), INTERNAL_ERROR);
    assert_eq!(device.load(0), noise(0));
    assert_eq!(device.code(MEDIA_OPERATIONS, &page), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(MEDIA_OPERATIONS), SUCCESS);
    assert_eq!(device.load(0), [0; PAGE as usize]);
}

#[test]
fn a_new_request_replaces_or_ends_the_earlier_one_and_returns_what_was_left() {
    let device = Device::new();
    let tell = |code, count| device.type3.fail_command(failure(IDENTIFY, code, count, false));
    assert_eq!(tell(INTERNAL_ERROR, 5), Ok(0));
    device.run(IDENTIFY, &[]);
    device.type3.reset();
    device.type3.power_on();
    assert_eq!(tell(MEDIA_FAILURE, u64::MAX), Ok(4), "neither reset nor power takes it away");
    assert_eq!(device.code(IDENTIFY, &[]), MEDIA_FAILURE);
    assert_eq!(tell(MEDIA_FAILURE, 0), Ok(u64::MAX - 1));
    assert_eq!(tell(MEDIA_FAILURE, 0), Ok(0));
    assert_eq!(device.code(IDENTIFY, &[]), SUCCESS);
}

#[test]
fn what_cannot_fail_is_refused() {
    let device = Device::new();
    for (failure, error) in [
        (failure(0x4001, INTERNAL_ERROR, 1, false), FailureError::Unknown(0x4001)),
        (failure(IDENTIFY, INTERNAL_ERROR, 1, true), FailureError::NotInBackground(IDENTIFY)),
        (failure(IDENTIFY, SUCCESS, 1, false), FailureError::NoFailure(SUCCESS)),
        (failure(MEDIA_OPERATIONS, BACKGROUND_STARTED, 1, true), FailureError::NoFailure(BACKGROUND_STARTED)),
    ] {
        assert_eq!(device.type3.fail_command(failure), Err(error));
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(device.code(IDENTIFY, &[]), SUCCESS);
}
