//! Firmware: a package goes into the slot that does not run, part by part, and runs when it is activated.

use super::driver::{Device, INVALID_INPUT, INVALID_PAYLOAD_LENGTH, SUCCESS};

const IN_PROGRESS: u16 = 0x08;
const OUT_OF_ORDER: u16 = 0x09;
const VERIFICATION_FAILED: u16 = 0x0a;
const INVALID_SLOT: u16 = 0x0b;

const FULL: u8 = 0;
const INITIATE: u8 = 1;
const CONTINUE: u8 = 2;
const END: u8 = 3;
const ABORT: u8 = 4;
const NOW: u8 = 0;
const NEXT_POWER_ON: u8 = 1;

/// `offset` in units of 128 bytes.
fn transfer(device: &Device, action: u8, slot: u8, offset: u32, part: &[u8]) -> u16 {
    let mut input = vec![0; 0x80];
    input[..2].copy_from_slice(&[action, slot]);
    input[4..8].copy_from_slice(&offset.to_le_bytes());
    input.extend(part);
    device.code(0x0201, &input)
}

fn activate(device: &Device, action: u8, slot: u8) -> u16 {
    device.code(0x0202, &[action, slot])
}

/// Active and staged slot, and the revision of slot 2.
fn info(device: &Device) -> (u8, u8, String) {
    let output = device.output(0x0200, &[]);
    assert_eq!((output.len(), output[0], output[2]), (0x50, 2, 1), "two slots, online activation");
    let revision = output[0x20..0x30].iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect();
    (output[1] & 7, output[1] >> 3, revision)
}

fn running(device: &Device) -> Vec<u8> {
    device.output(0x4000, &[])[..16].to_vec()
}

#[test]
fn a_package_in_one_part_runs_once_it_is_activated() {
    let device = Device::new();
    assert_eq!(activate(&device, NOW, 2), INVALID_SLOT, "it is empty");
    assert_eq!(transfer(&device, FULL, 2, 0, b"9.9"), SUCCESS);
    assert_eq!(info(&device), (1, 0, "9.9".into()));
    assert_eq!(activate(&device, NOW, 2), SUCCESS);
    assert_eq!(info(&device), (2, 0, "9.9".into()));
    assert_eq!(running(&device), *b"9.9\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_staged_package_runs_after_the_next_power_on_and_not_after_a_reset() {
    let device = Device::new();
    let before = running(&device);
    assert_eq!(transfer(&device, FULL, 2, 0, b"9.9"), SUCCESS);
    assert_eq!(activate(&device, NEXT_POWER_ON, 2), SUCCESS);
    assert_eq!(info(&device), (1, 2, "9.9".into()));
    device.type3.reset();
    assert_eq!((info(&device).0, running(&device)), (1, before));
    device.type3.power_on();
    assert_eq!(info(&device), (2, 0, "9.9".into()));
    assert_eq!(running(&device)[..4], *b"9.9\0");
}

#[test]
fn parts_come_in_order_and_the_last_one_may_come_again() {
    let device = Device::new();
    assert_eq!(transfer(&device, CONTINUE, 0, 0, &[0; 128]), OUT_OF_ORDER, "nothing was begun");
    assert_eq!(transfer(&device, INITIATE, 0, 1, &[0; 128]), OUT_OF_ORDER, "the first part is at 0");
    let mut first = [0; 256];
    first[..16].copy_from_slice(b"0123456789abcdef");
    assert_eq!(transfer(&device, INITIATE, 0, 0, &first), SUCCESS);
    assert_eq!(transfer(&device, INITIATE, 0, 0, &first), IN_PROGRESS);
    assert_eq!(transfer(&device, FULL, 2, 0, b"9.9"), IN_PROGRESS);
    assert_eq!(transfer(&device, CONTINUE, 0, 1, &[0; 128]), OUT_OF_ORDER);
    assert_eq!(transfer(&device, CONTINUE, 0, 2, &[0; 128]), SUCCESS);
    assert_eq!(transfer(&device, CONTINUE, 0, 2, &[0; 128]), SUCCESS);
    assert_eq!(transfer(&device, END, 2, 3, &[0; 5]), SUCCESS);
    assert_eq!(info(&device).2, "0123456789abcdef");
    assert_eq!(transfer(&device, END, 2, 3, &[0; 5]), OUT_OF_ORDER, "it has ended");
}

#[test]
fn a_transfer_ends_by_abort_and_by_reset_and_leaves_nothing() {
    let device = Device::new();
    for reset in [false, true] {
        assert_eq!(transfer(&device, INITIATE, 0, 0, &[b'9'; 128]), SUCCESS);
        if reset {
            device.type3.reset();
        } else {
            assert_eq!(transfer(&device, ABORT, 0, 0, &[]), SUCCESS);
        }
        assert_eq!(transfer(&device, END, 2, 1, &[0; 128]), OUT_OF_ORDER);
        assert_eq!(info(&device), (1, 0, String::new()));
    }
}

#[test]
fn the_slot_that_runs_is_never_written_and_a_package_needs_a_revision() {
    let device = Device::new();
    for slot in [0, 1, 3, 255] {
        assert_eq!(transfer(&device, FULL, slot, 0, b"9.9"), INVALID_SLOT);
        assert_eq!(activate(&device, NOW, slot), INVALID_SLOT);
    }
    for part in [&[][..], &[0; 128]] {
        assert_eq!(transfer(&device, FULL, 2, 0, part), VERIFICATION_FAILED);
    }
    assert_eq!(transfer(&device, 5, 2, 0, b"9.9"), INVALID_INPUT);
    assert_eq!(device.code(0x0201, &[0; 0x7f]), INVALID_PAYLOAD_LENGTH);
    assert_eq!(transfer(&device, FULL, 2, 0, b"9.9"), SUCCESS);
    assert_eq!(activate(&device, 2, 2), INVALID_INPUT);
    assert_eq!(device.code(0x0202, &[0]), INVALID_PAYLOAD_LENGTH);
    assert_eq!(info(&device), (1, 0, "9.9".into()));
}
