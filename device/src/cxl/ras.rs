//! CXL RAS capability structure (8.2.4.17): protocol errors of CXL.mem.
//!
//! The link to this device cannot fail, so no status bit is ever set; software still programs masks and severities.
//! The structure is 58h bytes long; its header log reads 0.

use super::registers::RegisterMap;

/// Capability id in the CXL.cache/mem capability array.
pub(super) const ID: u32 = 0x2;
/// Version of the structure.
pub(super) const VERSION: u32 = 3;

const UNCORRECTABLE_STATUS: usize = 0x00;
const UNCORRECTABLE_MASK: usize = 0x04;
const UNCORRECTABLE_SEVERITY: usize = 0x08;
const CORRECTABLE_STATUS: usize = 0x0c;
const CORRECTABLE_MASK: usize = 0x10;

/// Parity, byte enable, poison, retry, internal, IDE and flow control errors.
const UNCORRECTABLE: u32 = 0x0001_cfff;
/// ECC, CRC, retry, cache and memory poison, physical layer errors.
const CORRECTABLE: u32 = 0x0000_007f;

/// Adds the structure. All errors are masked and fatal at reset.
pub(super) fn add(map: RegisterMap, at: usize) -> RegisterMap {
    map.w1c32(at + UNCORRECTABLE_STATUS, UNCORRECTABLE)
        .rw32(at + UNCORRECTABLE_MASK, UNCORRECTABLE, UNCORRECTABLE)
        .rw32(at + UNCORRECTABLE_SEVERITY, UNCORRECTABLE, UNCORRECTABLE)
        .w1c32(at + CORRECTABLE_STATUS, CORRECTABLE)
        .rw32(at + CORRECTABLE_MASK, CORRECTABLE, CORRECTABLE)
}
