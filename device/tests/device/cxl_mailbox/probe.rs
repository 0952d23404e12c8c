//! What Linux does before there is a memdev: find the capabilities, see the mailbox ready, list the logs, identify.

use super::{
    driver::{
        CAPACITY, COMMAND, CONTROL, DEVICE_REGISTERS, DEVICE_STATUS, DOORBELL, Device, MEMORY_DEVICE_STATUS, OCCUPANCY,
        PAYLOAD, PRIMARY_MAILBOX, STATUS, SUCCESS, u16_at, u32_at, u64_at,
    },
    logs::effects,
};

#[test]
fn the_capability_array_names_what_linux_needs_and_the_vendor_block() {
    let capabilities = Device::new().capabilities();
    let ids: Vec<_> = capabilities.iter().map(|entry| entry.0).collect();
    assert_eq!(ids, [DEVICE_STATUS, MEMORY_DEVICE_STATUS, OCCUPANCY, PRIMARY_MAILBOX]);
    let mut end = DEVICE_REGISTERS + 0x10 * (1 + capabilities.len() as u64);
    for (id, version, offset, length) in capabilities {
        assert_eq!(version, 1, "{id:#x}");
        assert!(offset >= end && offset % 8 == 0 && length > 0, "{id:#x} overlaps what is before it");
        end = offset + length;
    }
    assert!(end <= DEVICE_REGISTERS + 0x10000);
}

#[test]
fn the_mailbox_is_ready_with_2_kib_of_payload_and_vector_7() {
    let device = Device::new();
    assert_eq!(device.read64(device.capability(MEMORY_DEVICE_STATUS)), 1 << 4 | 1 << 2);
    let capabilities = device.read32(device.capability(PRIMARY_MAILBOX));
    assert_eq!(capabilities & 0x1f, 11);
    assert_eq!(capabilities >> 6 & 1, 1, "background completion interrupts");
    assert_eq!(capabilities >> 7 & 0xf, 7);
    let length = device.capabilities().iter().find(|entry| entry.0 == PRIMARY_MAILBOX).unwrap().3;
    assert_eq!(length, PAYLOAD + 2048);
}

#[test]
fn the_probe_of_linux_succeeds_from_first_to_last() {
    let device = Device::new();
    let commands = effects(&device);
    for needed in [0x0100, 0x0101, 0x0102, 0x0103, 0x0301, 0x4000, 0x4100, 0x4300, 0x4400, 0x4402] {
        assert!(commands.contains_key(&needed), "{needed:#06x}");
    }
    let identity = device.output(0x4000, &[]);
    assert_eq!(identity.len(), 0x45);
    assert_eq!(u64_at(&identity, 0x10), CAPACITY >> 28, "total capacity in 256 MiB");
    assert_eq!(u64_at(&identity, 0x18), CAPACITY >> 28, "volatile");
    assert_eq!(u64_at(&identity, 0x20), 0, "persistent");
    assert_eq!(u64_at(&identity, 0x28), 0, "partition alignment: nothing to partition");
    assert_eq!([0x30, 0x32, 0x34, 0x36].map(|at| u16_at(&identity, at)), [256; 4], "event log sizes");
    assert_eq!(u32_at(&identity, 0x38), 0, "label storage");
    assert_eq!(u16_at(&identity, 0x3f), 256, "inject poison limit");
    let partitions = device.output(0x4100, &[]);
    assert_eq!([0, 8, 16, 24].map(|at| u64_at(&partitions, at)), [CAPACITY >> 28, 0, 0, 0]);
    assert_eq!(device.output(0x0301, &1_234_u64.to_le_bytes()).len(), 0);
    assert_eq!(device.output(0x0102, &[]), [2 << 4, 3 << 4, 4 << 4, 5 << 4], "no interrupts yet");
    assert_eq!(device.output(0x0103, &[1, 1, 1, 1]).len(), 0);
    assert_eq!(device.output(0x0102, &[]), [0x21, 0x31, 0x41, 0x51]);
    for log in 0..4 {
        assert_eq!(u16_at(&device.output(0x0100, &[log]), 0x14), 0, "log {log} is empty");
    }
}

#[test]
fn the_timestamp_is_zero_until_it_is_set_and_goes_on_from_there() {
    let device = Device::new();
    assert_eq!(device.output(0x0300, &[]), [0; 8]);
    let set = 1_700_000_000_000_000_000_u64;
    device.output(0x0301, &set.to_le_bytes());
    let first = u64_at(&device.output(0x0300, &[]), 0);
    assert!(first >= set);
    super::driver::wait_until(|| u64_at(&device.output(0x0300, &[]), 0) > first);
    device.type3.reset();
    assert_eq!(device.output(0x0300, &[]), [0; 8]);
}

#[test]
fn the_first_firmware_slot_runs_and_has_the_revision_that_identify_names() {
    let device = Device::new();
    let firmware = device.output(0x0200, &[]);
    assert_eq!((firmware.len(), firmware[0], firmware[1]), (0x50, 2, 1));
    assert_eq!(firmware[0x10..0x20], device.output(0x4000, &[])[..0x10]);
    assert!(firmware[0x10].is_ascii_digit());
}

#[test]
fn label_storage_of_no_size_takes_no_byte() {
    let device = Device::new();
    assert_eq!(device.run(0x4102, &[0; 8]), (SUCCESS, vec![]));
    assert_eq!(device.code(0x4102, &[0, 0, 0, 0, 1, 0, 0, 0]), super::driver::INVALID_INPUT);
    assert_eq!(device.code(0x4103, &[0; 8]), SUCCESS);
    assert_eq!(device.code(0x4103, &[0; 9]), super::driver::INVALID_INPUT);
}

#[test]
fn registers_may_be_read_and_written_in_parts_and_across() {
    let device = Device::new();
    let mailbox = device.capability(PRIMARY_MAILBOX);
    // Byte by byte: opcode 0300h, then the doorbell.
    for (at, byte) in [0x00, 0x03, 0, 0, 0, 0, 0, 0].into_iter().enumerate() {
        device.type3.bar0_write(mailbox + COMMAND + at as u64, &[byte]);
    }
    device.type3.bar0_write(mailbox + CONTROL, &[DOORBELL as u8]);
    assert_eq!(device.read64(mailbox + COMMAND), 0x0300 | 8 << 16);
    // A read over the end of the command register and the start of the status register.
    let whole: [u8; 16] = device.read(mailbox + COMMAND);
    assert_eq!(device.read::<6>(mailbox + COMMAND + 5), whole[5..11]);
    // One write from the capabilities to the last byte of the command register rings once all of it is there.
    let mut image = [0xff; 16];
    image[CONTROL as usize..].copy_from_slice(&[1, 0, 0, 0, 0x00, 0x40, 0, 0, 0, 0, 0, 0]);
    device.type3.bar0_write(mailbox, &image);
    assert_eq!(device.read64(mailbox + COMMAND), 0x4000 | 0x45 << 16);
    assert_eq!(device.read32(mailbox) & 0x1f, 11, "the capabilities stay");
    // From before the mailbox into it, and past its last payload byte.
    let before: [u8; 12] = device.read(mailbox - 4);
    assert_eq!(before[4..], device.read::<8>(mailbox));
    device.type3.bar0_write(mailbox + PAYLOAD + 2047, &[0x5a, 0x5a]);
    assert_eq!(device.read::<2>(mailbox + PAYLOAD + 2047), [0x5a, 0]);
}

#[test]
fn status_registers_ignore_writes() {
    let device = Device::new();
    let all = device.capabilities();
    for (id, _, offset, length) in all.iter().filter(|entry| entry.0 != PRIMARY_MAILBOX) {
        let before = if *id == OCCUPANCY { 0 } else { device.read64(*offset) };
        device.type3.bar0_write(*offset, &vec![0xff; *length as usize]);
        assert!(*id == OCCUPANCY || device.read64(*offset) == before, "{id:#x}");
    }
    device.write64(device.capability(PRIMARY_MAILBOX) + STATUS, u64::MAX);
    assert_eq!(device.read64(device.capability(PRIMARY_MAILBOX) + STATUS), 0);
    assert_eq!(device.capabilities(), all);
}

#[test]
fn a_reset_puts_every_mailbox_register_back() {
    let device = Device::new();
    let mailbox = device.capability(PRIMARY_MAILBOX);
    let fresh: Vec<u8> = device.read::<0x900>(mailbox).to_vec();
    device.enable_background_interrupt(true);
    device.output(0x0103, &[1, 1, 1, 1]);
    device.output(0x4301, &0_u64.to_le_bytes());
    device.output(0x4402, &[1, 1, 0, 0, 0, 0, 0, 0]);
    device.output(0x4000, &[]);
    device.type3.reset();
    assert_eq!(device.read::<0x900>(mailbox).to_vec(), fresh);
    assert_eq!(device.output(0x0102, &[]), [0x20, 0x30, 0x40, 0x50]);
    assert_eq!(device.media.poison_list(0..CAPACITY).len(), 1, "the medium keeps what it has");
}

#[test]
fn events_outlast_a_reset_and_not_the_power() {
    let device = Device::new();
    device.output(0x4301, &0_u64.to_le_bytes());
    device.type3.reset();
    assert_eq!(device.read64(device.capability(DEVICE_STATUS)), 1, "an informational event is waiting");
    assert_eq!(u16_at(&device.output(0x0100, &[0]), 0x14), 1);
    device.type3.power_on();
    assert_eq!(device.read64(device.capability(DEVICE_STATUS)), 0);
    assert_eq!(u16_at(&device.output(0x0100, &[0]), 0x14), 0);
}
