//! Poison: injected, listed, cleared, scanned for; and what the device lost by itself.

use std::{ops::Range, os::fd::BorrowedFd, sync::Arc};

use cxl_cram_device::hdm::{Resident, Window, media::Media};

use super::driver::{
    BACKGROUND_STARTED, CAPACITY, Device, GIB, INJECT_POISON_LIMIT_REACHED, INVALID_INPUT, INVALID_PHYSICAL_ADDRESS,
    LINE, PAGE, SUCCESS, UNSUPPORTED, noise, u16_at, u32_at, u64_at, words,
};

const SCAN_MEDIA: u16 = 0x4304;
const INTERNAL: u64 = 2;
const INJECTED: u64 = 3;

/// DPA, lines, source.
type Record = (u64, u32, u64);

fn records(output: &[u8], count_at: usize) -> Vec<Record> {
    let (records, rest) = output[0x20..].as_chunks::<16>();
    assert_eq!((records.len(), rest.len()), (usize::from(u16_at(output, count_at)), 0));
    records.iter().map(|r| (u64_at(r, 0) & !0x3f, u32_at(r, 8), u64_at(r, 0) & 7)).collect()
}

/// One Get Poison List: flags and records.
fn page(device: &Device, dpa: u64, bytes: u64) -> (u8, Vec<Record>) {
    let output = device.output(0x4300, &words(&[dpa, bytes / LINE]));
    (output[0], records(&output, 0x0a))
}

/// The whole list, as a driver reads it: the same command until there is no more.
fn list(device: &Device) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let (flags, records) = page(device, 0, CAPACITY);
        assert!(records.first() > all.last() || flags & 1 == 0, "the list does not go on");
        all.extend(records);
        if flags & 1 == 0 {
            return all;
        }
    }
}

fn inject(device: &Device, dpa: u64) -> u16 {
    device.code(0x4301, &dpa.to_le_bytes())
}

fn clear(device: &Device, dpa: u64, fill: u8) -> u16 {
    device.code(0x4302, &[&dpa.to_le_bytes()[..], &[fill; LINE as usize]].concat())
}

#[test]
fn an_injected_line_is_listed_reads_as_the_pattern_and_clears_to_what_is_written() {
    let device = Device::new();
    device.media.store(1, &[7; PAGE as usize]);
    assert_eq!(inject(&device, PAGE + 2 * LINE), SUCCESS);
    assert_eq!(list(&device), [(PAGE + 2 * LINE, 1, INJECTED)]);
    let pattern = 0xdead_beef_bad0_c0de_u64.to_le_bytes().repeat(8);
    let block = device.load(PAGE);
    assert_eq!(block[128..192], pattern);
    assert!(block[..128].iter().chain(&block[192..]).all(|&byte| byte == 7), "its neighbours are untouched");
    assert_eq!(clear(&device, PAGE + 2 * LINE, 9), SUCCESS);
    assert_eq!(list(&device), []);
    assert_eq!(device.load(PAGE)[127..193], [&[7][..], &[9; 64], &[7]].concat());
}

#[test]
fn neighbours_are_one_record_and_injecting_twice_is_no_error() {
    let device = Device::new();
    for line in [4, 5, 6, 5, 9] {
        assert_eq!(inject(&device, line * LINE), SUCCESS);
    }
    assert_eq!(list(&device), [(4 * LINE, 3, INJECTED), (9 * LINE, 1, INJECTED)]);
    assert_eq!(page(&device, 5 * LINE, 2 * LINE).1, [(5 * LINE, 2, INJECTED)], "cut to the range asked for");
    assert_eq!(page(&device, 7 * LINE, 2 * LINE).1, []);
    assert_eq!(page(&device, 0, 0).1, [], "an empty range");
    assert_eq!(clear(&device, 5 * LINE, 0), SUCCESS);
    assert_eq!(list(&device).len(), 3, "a run with a hole is two");
}

#[test]
fn addresses_must_be_lines_inside_the_capacity() {
    let device = Device::new();
    for (dpa, code) in [
        (1, INVALID_INPUT),
        (LINE - 1, INVALID_INPUT),
        (CAPACITY - 1, INVALID_INPUT),
        (CAPACITY, INVALID_PHYSICAL_ADDRESS),
        (!63, INVALID_PHYSICAL_ADDRESS),
        (u64::MAX, INVALID_PHYSICAL_ADDRESS),
    ] {
        assert_eq!(inject(&device, dpa), code, "{dpa:#x}");
        assert_eq!(clear(&device, dpa, 0), code, "{dpa:#x}");
    }
    assert_eq!(inject(&device, CAPACITY - LINE), SUCCESS);
    assert_eq!(list(&device), [(CAPACITY - LINE, 1, INJECTED)]);
    for opcode in [0x4300, 0x4303, SCAN_MEDIA] {
        let flags: &[u8] = if opcode == SCAN_MEDIA { &[0] } else { &[] };
        let code = |dpa, lines| device.code(opcode, &[&words(&[dpa, lines])[..], flags].concat());
        assert_eq!(code(1, 1), INVALID_INPUT, "{opcode:#x}");
        assert_eq!(code(0, CAPACITY / LINE + 1), INVALID_PHYSICAL_ADDRESS, "{opcode:#x}");
        assert_eq!(code(CAPACITY, 1), INVALID_PHYSICAL_ADDRESS, "{opcode:#x}");
        assert_eq!(code(LINE, u64::MAX), INVALID_PHYSICAL_ADDRESS, "{opcode:#x}");
        assert_eq!(code(LINE, u64::MAX / LINE), INVALID_PHYSICAL_ADDRESS, "{opcode:#x}");
    }
}

#[test]
fn the_257th_injected_line_is_refused_until_one_is_cleared() {
    let device = Device::new();
    for line in 0..256 {
        assert_eq!(inject(&device, line * 2 * LINE), SUCCESS);
    }
    assert_eq!(inject(&device, GIB / 4), INJECT_POISON_LIMIT_REACHED);
    assert_eq!(inject(&device, 0), SUCCESS, "it is poisoned already");
    assert_eq!(list(&device).len(), 256);
    assert_eq!(clear(&device, 0, 0), SUCCESS);
    assert_eq!(inject(&device, GIB / 4), SUCCESS);
}

#[test]
fn a_long_list_comes_in_parts_to_the_same_command_repeated() {
    let device = Device::new();
    for line in 0..256 {
        inject(&device, line * 2 * LINE);
    }
    let (flags, first) = page(&device, 0, CAPACITY);
    assert_eq!((flags & 1, first.len()), (1, 126));
    let (flags, second) = page(&device, 0, CAPACITY);
    assert_eq!((flags & 1, second.len()), (1, 126));
    let (flags, third) = page(&device, 0, CAPACITY);
    assert_eq!((flags & 1, third.len()), (0, 4));
    let all = [first, second, third].concat();
    assert_eq!(all, (0..256).map(|line| (line * 2 * LINE, 1, INJECTED)).collect::<Vec<_>>());
    assert_eq!(page(&device, 0, CAPACITY).1, all[..126], "then from the start again");
    assert_eq!(page(&device, 0, LINE).1, all[..1], "another range ends it");
    assert_eq!(page(&device, 0, CAPACITY).1, all[..126]);
}

#[test]
fn a_block_that_does_not_fit_is_listed_as_internal() {
    let device = Device::with_physical(64 * PAGE);
    device.fill(0..65);
    let used = device.used();
    assert!(used <= 64 * PAGE);
    let lost = list(&device);
    let (dpa, lines, source) = lost[0];
    assert_eq!((u64::from(lines) % (PAGE / LINE), source), (0, INTERNAL));
    assert_eq!(device.load(dpa), *0xdead_beef_bad0_c0de_u64.to_le_bytes().repeat(512));
    assert_eq!(u64::from(lost.iter().map(|record| record.1).sum::<u32>()) * LINE, device.media.occupancy().poisoned);
}

#[test]
fn a_scan_finds_what_is_poisoned_and_its_results_are_fetched_once() {
    let device = Device::new();
    assert_eq!(device.code(0x4305, &[]), UNSUPPORTED, "no scan has ended");
    for line in 0..200 {
        inject(&device, CAPACITY / 2 + line * 2 * LINE);
    }
    assert_eq!(device.output(0x4303, &words(&[0, CAPACITY / LINE])).len(), 4);
    let input = [&words(&[0, CAPACITY / LINE])[..], &[0]].concat();
    assert_eq!(device.run(SCAN_MEDIA, &input), (BACKGROUND_STARTED, vec![]));
    assert_eq!(device.wait_background(SCAN_MEDIA), SUCCESS);
    let first = device.output(0x4305, &[]);
    assert_eq!((u64_at(&first, 8), first[0x10]), (0, 1), "nothing left to scan, more records");
    let second = device.output(0x4305, &[]);
    assert_eq!(second[0x10], 0);
    let found = [records(&first, 0x12), records(&second, 0x12)].concat();
    assert_eq!(found, list(&device));
    assert_eq!(device.code(0x4305, &[]), UNSUPPORTED, "all is fetched");
}

/// A window that holds dirty blocks until it is flushed.
struct Dirty(Arc<Media>, Range<u64>);

impl Window for Dirty {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn read(&self, _dpa: u64, _data: &mut [u8]) {}
    fn write(&self, _dpa: u64, _data: &[u8]) {}
    fn flush(&self) {
        self.1.clone().for_each(|block| self.0.store(block, &noise(block)));
    }
    fn invalidate(&self, _dpa: Range<u64>) {}
    fn resident(&self) -> Resident {
        Resident::default()
    }
}

#[test]
fn a_scan_finds_the_block_that_the_window_still_held_and_that_does_not_fit() {
    let device = Device::with_physical(16 * PAGE);
    let window = Arc::new(Dirty(Arc::clone(&device.media), 0..17));
    device.media.set_window(&window);
    assert_eq!(list(&device), [], "the medium knows of nothing yet");
    let everything = [&words(&[0, CAPACITY / LINE])[..], &[0]].concat();
    assert_eq!(device.code(SCAN_MEDIA, &everything), BACKGROUND_STARTED);
    assert_eq!(device.wait_background(SCAN_MEDIA), SUCCESS);
    assert_eq!(records(&device.output(0x4305, &[]), 0x12), [(16 * PAGE, 64, INTERNAL)]);
}

#[test]
fn a_scan_of_a_part_finds_only_that() {
    let device = Device::new();
    for dpa in [0, PAGE, 2 * PAGE] {
        inject(&device, dpa);
    }
    device.run(SCAN_MEDIA, &[&words(&[PAGE, PAGE / LINE])[..], &[0]].concat());
    assert_eq!(device.wait_background(SCAN_MEDIA), SUCCESS);
    let output = device.output(0x4305, &[]);
    assert_eq!(records(&output, 0x12), [(PAGE, 1, INJECTED)]);
}

#[test]
fn a_scan_without_room_for_its_results_reports_where_to_continue() {
    let device = Device::with_physical(64 * PAGE);
    // Blocks that are lost, each beside one that holds no media: records that cannot be joined.
    device.fill(0..64);
    for n in 0..5000 {
        device.media.store(1000 + 2 * n, &super::driver::noise(n));
    }
    let line = |bytes: u64| bytes / LINE;
    let all = device.media.poison_list(0..CAPACITY);
    let all: Vec<_> = all.iter().map(|record| (record.dpa, line(record.length) as u32, record.source as u64)).collect();
    assert!(all.len() >= 4900, "{}", all.len());
    // The list is shorter than what there is, says so, and begins anew each time it is read.
    for _ in 0..2 {
        assert_eq!(list(&device), all[..1024]);
    }
    let everything = words(&[0, line(CAPACITY)]);
    let flags: Vec<_> = std::iter::repeat_with(|| device.output(0x4300, &everything)[0]).take(9).collect();
    assert_eq!(flags[..8], [3; 8], "more, and overflowed");
    assert_eq!(flags[8], 2, "no more, and overflowed");
    let (mut start, mut found) = (0, Vec::new());
    while start < CAPACITY {
        device.run(SCAN_MEDIA, &[&words(&[start, (CAPACITY - start) / LINE])[..], &[0]].concat());
        assert_eq!(device.wait_background(SCAN_MEDIA), SUCCESS);
        loop {
            let output = device.output(0x4305, &[]);
            found.extend(records(&output, 0x12));
            let (rest, lines, flags) = (u64_at(&output, 0), u64_at(&output, 8), output[0x10]);
            assert_eq!(flags & 2 != 0, lines != 0, "stopped before the end");
            if flags & 1 == 0 {
                assert!(rest > start);
                start = rest;
                break;
            }
        }
    }
    assert_eq!(found, all);
}
