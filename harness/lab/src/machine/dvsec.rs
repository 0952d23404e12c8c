//! Reads what the firmware needs of a function from its configuration space.

use cxl_cram_device::cxl::dvsec::{BLOCK_COMPONENT, CXL_VENDOR, cxl_device, register_locator};

/// Bytes of a PCI Express function's configuration space.
pub(super) const CONFIG_SPACE: usize = 4096;

/// The pointer to the first capability, the ID of PCI Express's, and its link capabilities.
const CAPABILITIES: usize = 0x34;
const PCI_EXPRESS: u32 = 0x10;
const LINK_CAPABILITIES: usize = 0xc;
/// The first extended capability.
const FIRST: usize = 0x100;
/// The ID of the Designated Vendor-Specific Extended Capability.
const DVSEC: u32 = 0x0023;
/// The most capabilities that fit, at four bytes each. A longer list is a loop.
const MOST: usize = (CONFIG_SPACE - FIRST) / 4;
/// The size bits in the lower half of a range's size: multiples of 256 MiB.
const SIZE_LOW: u32 = 0xf000_0000;

/// Where a function's DVSEC of CXL with this id starts.
fn find(space: &[u8], id: u16) -> Option<usize> {
    let mut at = FIRST;
    for _ in 0..MOST {
        let header = word(space, at)?;
        let is_cxl = || Some((word(space, at + 4)? & 0xffff, word(space, at + 8)? & 0xffff));
        if header & 0xffff == DVSEC && is_cxl()? == (u32::from(CXL_VENDOR), u32::from(id)) {
            return Some(at);
        }
        at = (header >> 20) as usize;
        if at < FIRST {
            return None;
        }
    }
    None
}

fn word(space: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*space.get(at..)?.first_chunk()?))
}

/// The HDM capacity that a function's DVSEC for CXL devices states, in bytes (CXL 3.1, section 8.1.3).
pub(super) fn hdm_capacity(space: &[u8]) -> Option<u64> {
    let at = find(space, cxl_device::ID)?;
    let high = word(space, at + cxl_device::RANGE1_SIZE_HIGH)?;
    let low = word(space, at + cxl_device::RANGE1_SIZE_LOW)? & SIZE_LOW;
    Some(u64::from(high) << 32 | u64::from(low))
}

/// The offset of a CXL device's control register in its configuration space, and what the register holds (8.1.3.2).
pub(super) fn control(space: &[u8]) -> Option<(u64, u16)> {
    let at = find(space, cxl_device::ID)? + cxl_device::CONTROL;
    Some((at as u64, word(space, at)? as u16))
}

/// The BAR of a function's component registers, and their offset in it (8.1.9).
pub(super) fn component_registers(space: &[u8]) -> Option<(u8, u64)> {
    let at = find(space, register_locator::ID)?;
    let length = (word(space, at + 4)? >> 20) as usize;
    for entry in (register_locator::FIRST_ENTRY..length).step_by(8) {
        let (low, high) = (word(space, at + entry)?, word(space, at + entry + 4)?);
        if low >> 8 & 0xff == BLOCK_COMPONENT {
            return Some((low as u8 & 0x7, u64::from(high) << 32 | u64::from(low & 0xffff_0000)));
        }
    }
    None
}

/// The number of a PCI Express port, from its link capabilities (PCIe 6.0, section 7.5.3.6).
pub(super) fn port_number(space: &[u8]) -> Option<u8> {
    let mut at = usize::from(*space.get(CAPABILITIES)?);
    // The capabilities are below 100h, at four bytes each at least.
    for _ in 0..FIRST / 4 {
        let header = word(space, at & 0xfc)?;
        if header & 0xff == PCI_EXPRESS {
            return Some((word(space, (at & 0xfc) + LINK_CAPABILITIES)? >> 24) as u8);
        }
        at = (header >> 8 & 0xff) as usize;
        if at == 0 {
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
    fn the_control_register_and_the_component_registers_are_found() {
        let words = [
            (0x100, 0x1401_0023),
            (0x104, 0x03c3_1e98),
            (0x108, 0x001e_0000),
            (0x10c, 0x4000_0002),
            (0x140, 0x0001_0023),
            (0x144, 0x01c0_1e98),
            (0x148, 0x0000_0008),
            (0x14c, 0x0001_0302),
            (0x154, 0x0002_0104),
            (0x158, 0x0000_0001),
        ];
        assert_eq!(control(&space(&words)), Some((0x10c, 2)));
        assert_eq!(component_registers(&space(&words)), Some((4, 0x1_0002_0000)));
        assert_eq!(component_registers(&space(&words[..8])), None);
        assert_eq!((control(&[]), component_registers(&[])), (None, None));
    }

    #[test]
    fn a_port_has_the_number_of_its_link_capabilities() {
        let words = [(0x34, 0x40), (0x40, 0x0000_5001), (0x50, 0x0042_0010), (0x5c, 0x0300_0c11)];
        assert_eq!(port_number(&space(&words)), Some(3));
        assert_eq!(port_number(&space(&words[..2])), None);
        assert_eq!(port_number(&space(&[(0x34, 0x40), (0x40, 0x0000_4001)])), None);
        assert_eq!(port_number(&[]), None);
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
