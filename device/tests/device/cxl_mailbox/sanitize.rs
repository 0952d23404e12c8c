//! Sanitize: everything gone, and the media disabled until it is.

use super::{
    driver::{
        ABORT_NOT_SUPPORTED, BACKGROUND_STARTED, BUSY, CAPACITY, Device, LINE, MEDIA_DISABLED, MEMORY_DEVICE_STATUS,
        PAGE, SUCCESS, words,
    },
    media_operations::{MEDIA_OPERATIONS, zero},
};

const SANITIZE: u16 = 0x4400;

/// Memory Device Status, bits 3:2.
const READY: u64 = 1;
const DISABLED: u64 = 3;

fn media_status(device: &Device) -> u64 {
    device.read64(device.capability(MEMORY_DEVICE_STATUS)) >> 2 & 3
}

#[test]
fn sanitize_leaves_no_data_no_media_and_no_poison() {
    let device = Device::new();
    let last = CAPACITY / PAGE - 1;
    device.fill(0..16);
    device.fill(last..last + 1);
    device.output(0x4301, &(4 * PAGE).to_le_bytes());
    assert_eq!(device.run(SANITIZE, &[]), (BACKGROUND_STARTED, vec![]));
    assert_eq!(device.wait_background(SANITIZE), SUCCESS);
    assert_eq!(media_status(&device), READY);
    assert_eq!(device.used(), 0);
    for block in (0..16).chain([last]) {
        assert_eq!(device.load(block * PAGE), [0; PAGE as usize], "block {block}");
    }
    assert_eq!(device.media.poison_list(0..CAPACITY), []);
    assert_eq!(device.code(0x4301, &0_u64.to_le_bytes()), SUCCESS, "the media is enabled again");
}

#[test]
fn linux_finds_security_disabled_before_it_sanitizes() {
    // No passphrase, not locked, not frozen: cxl_mem_sanitize() goes on only then.
    assert_eq!(Device::new().output(0x4500, &[]), [0; 4]);
}

#[test]
fn the_media_is_disabled_while_sanitize_runs() {
    let device = Device::new();
    let held = device.hold_background();
    assert_eq!(device.code(SANITIZE, &[]), BACKGROUND_STARTED);
    assert_eq!(media_status(&device), DISABLED);
    let list = words(&[0, CAPACITY / LINE]);
    for (opcode, input) in [(0x4300, list), (0x4301, vec![0; 8]), (0x4302, vec![0; 72])] {
        assert_eq!(device.code(opcode, &input), MEDIA_DISABLED, "{opcode:#06x}");
    }
    // What cannot start before it ends is busy rather than disabled.
    assert_eq!(device.code(MEDIA_OPERATIONS, &zero(0, PAGE)), BUSY);
    assert_eq!(device.code(SANITIZE, &[]), BUSY);
    for opcode in [0x0102, 0x0300, 0x0400, 0x4000, 0x4200, 0xc000] {
        assert_eq!(device.code(opcode, &[]), SUCCESS, "{opcode:#06x} needs no media");
    }
    drop(held);
    assert_eq!(device.wait_background(SANITIZE), SUCCESS);
    assert_eq!(media_status(&device), READY);
}

#[test]
fn sanitize_cannot_be_aborted() {
    let device = Device::new();
    let held = device.hold_background();
    device.code(SANITIZE, &[]);
    assert_eq!(device.code(0x0005, &[]), ABORT_NOT_SUPPORTED);
    drop(held);
    assert_eq!(device.wait_background(SANITIZE), SUCCESS);
}
