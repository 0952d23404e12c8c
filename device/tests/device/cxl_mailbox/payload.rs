//! Payload registers larger than 2 KiB: where they are, and what fits.

use cxl_cram_device::{cxl::Injector, hdm::media::Crossing};

use super::driver::{
    BACKGROUND_STARTED, Device, INVALID_INPUT, INVALID_PAYLOAD_LENGTH, PAYLOAD, PRIMARY_MAILBOX, u16_at, wait_until,
};

const MEDIA_OPERATIONS: u16 = 0x4402;
const SIZES: [u64; 4] = [4 << 10, 32 << 10, 64 << 10, 1 << 20];

/// Zero of `count` ranges of a page each.
fn zero(count: u32) -> Vec<u8> {
    let ranges = (0..u64::from(count)).flat_map(|page| [page * 8192, 4096].map(u64::to_le_bytes).concat());
    [vec![1, 1, 0, 0], count.to_le_bytes().to_vec(), ranges.collect()].concat()
}

#[test]
fn the_register_and_the_capability_state_the_size_and_all_of_it_can_be_read_back() {
    for bytes in SIZES {
        let device = Device::with_payload(bytes);
        let (_, _, mailbox, length) =
            device.capabilities().into_iter().find(|entry| entry.0 == PRIMARY_MAILBOX).unwrap();
        assert_eq!(u64::from(device.read32(mailbox) & 0x1f), u64::from(bytes.ilog2()));
        assert_eq!(length, PAYLOAD + bytes);
        assert!(mailbox + length <= device.type3.bar0_size() && device.type3.bar0_size().is_power_of_two());
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        device.type3.bar0_write(mailbox + PAYLOAD, &data);
        let mut read = vec![0; data.len()];
        device.type3.bar0_read(mailbox + PAYLOAD, &mut read);
        assert!(read == data, "{bytes} bytes");
        device.write64(mailbox + PAYLOAD + bytes, u64::MAX);
        assert_eq!(device.read64(mailbox + PAYLOAD + bytes), 0, "nothing behind them");
    }
}

#[test]
fn a_media_operation_has_as_many_ranges_as_fit() {
    for bytes in SIZES {
        let device = Device::with_payload(bytes);
        let most = u32::try_from((bytes - 8) / 16).unwrap();
        assert_eq!(device.code(MEDIA_OPERATIONS, &zero(most)), BACKGROUND_STARTED, "{most} ranges");
        wait_until(|| device.code(MEDIA_OPERATIONS, &zero(1)) == BACKGROUND_STARTED);
    }
    assert_eq!((2048 - 8) / 16, 127, "the default");
}

#[test]
fn a_command_longer_than_the_registers_is_refused() {
    let device = Device::with_payload(4 << 10);
    let mailbox = device.capability(PRIMARY_MAILBOX);
    device.write64(mailbox + 8, 0x0005 | 4097 << 16);
    device.write32(mailbox + 4, 1);
    assert_eq!((device.read64(mailbox + 0x10) >> 32) as u16, INVALID_PAYLOAD_LENGTH);
}

#[test]
fn a_log_and_the_records_of_events_come_in_larger_pieces() {
    let device = Device::with_payload(1 << 20);
    for _ in 0..40 {
        device.type3.inject_crossing(Crossing::High);
    }
    let output = device.output(0x0100, &[0]);
    assert_eq!((output[0] & 2, u16_at(&output, 0x14)), (0, 40), "all at once, and no more");
    // A length that the registers hold, and the log does not.
    let log = &device.output(0x0400, &[])[8..24];
    let whole = [log, &[0; 4], &(1_u32 << 20).to_le_bytes()].concat();
    assert_eq!(device.code(0x0401, &whole), INVALID_INPUT);
}
