//! A file given as CDAT: refused, or served as it is.

#![no_main]

use cxl_cram_device::cxl::cdat::Cdat;
use libfuzzer_sys::fuzz_target;

/// Where a header has the table's length and its checksum.
const LENGTH: std::ops::Range<usize> = 0..4;
const CHECKSUM: usize = 5;

fuzz_target!(|input: &[u8]| {
    check(input);
    // With a right header most inputs would not get past.
    let mut sealed = input.to_vec();
    if sealed.len() > CHECKSUM {
        sealed[LENGTH].copy_from_slice(&(input.len() as u32).to_le_bytes());
        sealed[CHECKSUM] = 0;
        sealed[CHECKSUM] = sealed.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        check(&sealed);
    }
});

fn check(bytes: &[u8]) {
    let Ok(table) = Cdat::parse(bytes) else { return };
    let handles = std::iter::successors(Some(0), |handle| table.next(*handle));
    let entries: Vec<u8> = handles.flat_map(|handle| table.entry(handle).expect("a handle has an entry").to_vec()).collect();
    assert_eq!(entries, bytes);
}
