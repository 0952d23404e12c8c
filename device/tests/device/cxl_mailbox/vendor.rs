//! The vendor interface of docs/vendor-interface.md: one structure, by registers and by command.

use std::{ops::Range, os::fd::BorrowedFd, sync::Arc};

use cxl_cram_device::hdm::{Resident, Window};

use super::driver::{CAPACITY, Device, INVALID_INPUT, OCCUPANCY, PAGE, SUCCESS, u32_at, u64_at, words};

const GET_OCCUPANCY: u16 = 0xc000;
const SET_WATERMARKS: u16 = 0xc001;

fn registers(device: &Device) -> Vec<u8> {
    device.read::<0x80>(device.capability(OCCUPANCY)).to_vec()
}

/// Every field, against what the medium says.
fn check(device: &Device, bytes: &[u8]) {
    let is = device.media.occupancy();
    let usage = is.usage;
    let logical = (usage.compressed_blocks + usage.raw_blocks + usage.same_filled_blocks) * PAGE;
    assert_eq!(bytes.len(), 0x80);
    assert_eq!(&bytes[..4], b"CRAM");
    assert_eq!(u32_at(bytes, 0x04), 1, "version");
    let fields = [is.capacity, usage.physical, usage.used, usage.free(), usage.data, logical];
    assert_eq!([0x08, 0x10, 0x18, 0x20, 0x28, 0x30].map(|at| u64_at(bytes, at)), fields);
    let ratio = |stored: u64| (logical * 1000).checked_div(stored).unwrap_or(0);
    assert_eq!(u64::from(u32_at(bytes, 0x38)), ratio(usage.data));
    assert_eq!(u64::from(u32_at(bytes, 0x3c)), ratio(usage.used + usage.metadata));
    assert_eq!([u64_at(bytes, 0x40), u64_at(bytes, 0x48)], [is.low_watermark, is.high_watermark]);
    assert_eq!(u64_at(bytes, 0x50), u64::from(is.blocked) | u64::from(is.poisoned > 0) << 1);
    assert_eq!([u64_at(bytes, 0x58), u64_at(bytes, 0x60)], [is.poisoned, is.overflows]);
    assert_eq!(u64_at(bytes, 0x70), is.lag);
    assert_eq!(bytes[0x78..], [0; 8], "reserved");
}

#[test]
fn registers_and_command_report_the_occupancy_of_the_medium() {
    let device = Device::with_physical(100 * PAGE);
    check(&device, &registers(&device));
    device.fill(0..20);
    let mut text = [b'a'; PAGE as usize];
    text[..64].copy_from_slice(&super::driver::noise(0)[..64]);
    (1000..1100).for_each(|block| device.media.store(block, &text));
    device.media.store(2000, &[3; PAGE as usize]);
    check(&device, &registers(&device));
    check(&device, &device.output(GET_OCCUPANCY, &[]));
    assert!(u32_at(&registers(&device), 0x38) > 1000);
    // Over the top: blocked, poisoned, overflowed.
    device.fill(3000..3110);
    let over = device.output(GET_OCCUPANCY, &[]);
    check(&device, &over);
    check(&device, &registers(&device));
    assert_eq!(u64_at(&over, 0x50), 3);
    assert!(u64_at(&over, 0x60) > 0);
}

/// A window whose write-back has no end.
struct Stuck;

impl Window for Stuck {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn read(&self, _dpa: u64, _data: &mut [u8]) {}
    fn write(&self, _dpa: u64, _data: &[u8]) {}
    fn flush(&self) {
        unreachable!("it would not come back");
    }
    fn flush_unless(&self, late: &dyn Fn() -> bool) -> u64 {
        while !late() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.dirty()
    }
    fn dirty(&self) -> u64 {
        5 * PAGE
    }
    fn invalidate(&self, _dpa: Range<u64>) {}
    fn resident(&self) -> Resident {
        Resident::default()
    }
}

#[test]
fn an_occupancy_that_cannot_be_had_in_time_is_answered_and_says_by_how_much_it_lags() {
    let device = Device::new();
    device.fill(0..3);
    let window = Arc::new(Stuck);
    device.media.set_window(&window);
    for bytes in [registers(&device), device.output(GET_OCCUPANCY, &[])] {
        assert_eq!((u64_at(&bytes, 0x70), bytes[0x78..].to_vec()), (5 * PAGE, vec![0; 8]));
        assert_eq!(u64_at(&bytes, 0x18), 3 * PAGE, "what is known is there");
    }
}

#[test]
fn the_registers_fit_together_as_of_the_read_of_the_first_byte() {
    let device = Device::new();
    let block = device.capability(OCCUPANCY);
    device.read32(block);
    device.fill(0..10);
    assert_eq!(device.read64(block + 0x18), 0, "used, as it was then");
    assert_eq!(device.read64(block + 0x20), CAPACITY);
    device.read::<1>(block);
    let used = device.used();
    assert!(used >= 10 * PAGE);
    assert_eq!(device.read64(block + 0x18), used);
    assert_eq!(device.read64(block + 0x20), CAPACITY - used);
    let halves = [device.read32(block + 0x20), device.read32(block + 0x24)].map(u64::from);
    assert_eq!(halves[0] | halves[1] << 32, CAPACITY - used, "32-bit accesses do as well");
    // A read that comes from before the block takes its first byte as well.
    device.fill(10..20);
    let across: [u8; 0x28] = device.read(block - 8);
    assert_eq!(u64_at(&across, 0x20), device.used());
}

#[test]
fn a_reset_forgets_the_snapshot() {
    let device = Device::new();
    let block = device.capability(OCCUPANCY);
    device.read32(block);
    assert_eq!(device.read64(block + 8), CAPACITY);
    device.type3.reset();
    assert_eq!(device.read64(block + 8), 0);
}

#[test]
fn watermarks_are_set_in_bytes_and_refused_when_they_make_no_sense() {
    let device = Device::with_physical(100 * PAGE);
    assert_eq!(device.run(SET_WATERMARKS, &words(&[5 * PAGE + 1, 50 * PAGE])), (SUCCESS, vec![]));
    let set = device.output(GET_OCCUPANCY, &[]);
    assert_eq!([u64_at(&set, 0x40), u64_at(&set, 0x48)], [5 * PAGE + 1, 50 * PAGE]);
    for (low, high) in [(PAGE, PAGE), (2 * PAGE, PAGE), (PAGE, 100 * PAGE), (0, 0), (u64::MAX, u64::MAX)] {
        assert_eq!(device.code(SET_WATERMARKS, &words(&[low, high])), INVALID_INPUT, "{low} {high}");
    }
    assert_eq!(device.output(GET_OCCUPANCY, &[]), set);
}
