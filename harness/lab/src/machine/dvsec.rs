//! Reads a memory device's capacity from its configuration space.

use cxl_cram_device::cxl::dvsec::{CXL_VENDOR, cxl_device};

/// Bytes of a PCI Express function's configuration space.
pub(super) const CONFIG_SPACE: usize = 4096;

/// The first extended capability.
const FIRST: usize = 0x100;
/// The ID of the Designated Vendor-Specific Extended Capability.
const DVSEC: u32 = 0x0023;
/// The most capabilities that fit, at four bytes each. A longer list is a loop.
const MOST: usize = (CONFIG_SPACE - FIRST) / 4;
/// The size bits in the lower half of a range's size: multiples of 256 MiB.
const SIZE_LOW: u32 = 0xf000_0000;

/// The HDM capacity that a function's DVSEC for CXL devices states, in bytes (CXL 3.1, section 8.1.3).
pub(super) fn hdm_capacity(space: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_le_bytes(*space.get(at..)?.first_chunk()?));
    let mut at = FIRST;
    for _ in 0..MOST {
        let header = word(at)?;
        let is_cxl = || Some((word(at + 4)? & 0xffff, word(at + 8)? & 0xffff));
        if header & 0xffff == DVSEC && is_cxl()? == (u32::from(CXL_VENDOR), u32::from(cxl_device::ID)) {
            let high = word(at + cxl_device::RANGE1_SIZE_HIGH)?;
            let low = word(at + cxl_device::RANGE1_SIZE_LOW)? & SIZE_LOW;
            return Some(u64::from(high) << 32 | u64::from(low));
        }
        at = (header >> 20) as usize;
        if at < FIRST {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with these words.
    fn space(words: &[(usize, u32)]) -> Vec<u8> {
        let mut space = vec![0; CONFIG_SPACE];
        for (at, word) in words {
            space[*at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        space
    }

    #[test]
    fn the_capacity_is_found_behind_other_capabilities() {
        let words = [
            (0x100, 0x1401_0001),
            // A DVSEC of CXL that is not the device's.
            (0x140, 0x1801_0023),
            (0x144, 0x0000_1e98),
            (0x148, 0x0000_0008),
            (0x180, 0x0001_0023),
            (0x184, 0x03c3_1e98),
            (0x188, 0x001e_0000),
            (0x198, 0x0000_0001),
            (0x19c, 0x3000_004b),
        ];
        assert_eq!(hdm_capacity(&space(&words)), Some(0x1_3000_0000));
    }

    #[test]
    fn a_missing_looping_or_truncated_capability_list_gives_no_capacity() {
        assert_eq!(hdm_capacity(&[]), None);
        assert_eq!(hdm_capacity(&space(&[])), None);
        assert_eq!(hdm_capacity(&space(&[(0x100, 0x1001_0001)])), None);
        assert_eq!(hdm_capacity(&space(&[(0x100, 0xfff1_0001)])), None);
        assert_eq!(hdm_capacity(&space(&[(0x100, 0xffc1_0001), (0xffc, 0x0001_0023)])), None);
    }
}
