//! CXL RAS capability structure (8.2.4.17): protocol errors of CXL.mem.
//!
//! The link to this device cannot fail: status bits are set only where an error is injected. Software programs masks and
//! severities, which change nothing: the AER message that goes with an error is not the device's to send over vfio-user.

use serde::{Deserialize, Serialize};

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
/// Bits 5:0 name the first uncorrectable error, which the header log is of.
const CAPABILITIES_AND_CONTROL: usize = 0x14;
const HEADER_LOG: usize = 0x18;

/// Parity, byte enable, poison, retry, internal, IDE and flow control errors.
const UNCORRECTABLE: u32 = 0x0001_cfff;
/// ECC, CRC, retry, cache and memory poison, physical layer errors.
const CORRECTABLE: u32 = 0x0000_007f;

/// An uncorrectable error, and the status bit it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the status bits")]
pub enum Uncorrectable {
    CacheDataParity = 0,
    CacheAddressParity = 1,
    CacheBeParity = 2,
    CacheDataEcc = 3,
    MemDataParity = 4,
    MemAddressParity = 5,
    MemBeParity = 6,
    MemDataEcc = 7,
    ReinitThreshold = 8,
    RsvdEncoding = 9,
    PoisonReceived = 10,
    ReceiverOverflow = 11,
    Internal = 14,
    CxlIdeTx = 15,
    CxlIdeRx = 16,
}

/// A correctable error, and the status bit it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the status bits")]
pub enum Correctable {
    CacheDataEcc = 0,
    MemDataEcc = 1,
    CrcThreshold = 2,
    RetryThreshold = 3,
    CachePoisonReceived = 4,
    MemPoisonReceived = 5,
    Physical = 6,
}

/// The header log of an error: 16 dwords.
pub type Header = [u32; 16];

/// Sets an uncorrectable error's status bit. The first one since the host cleared the status leaves its header.
pub(super) fn uncorrectable(map: &mut RegisterMap, at: usize, error: Uncorrectable, header: &Header) {
    let status = map.get32(at + UNCORRECTABLE_STATUS);
    if status == 0 {
        map.set32(at + CAPABILITIES_AND_CONTROL, error as u32);
        for (index, &word) in header.iter().enumerate() {
            map.set32(at + HEADER_LOG + 4 * index, word);
        }
    }
    map.set32(at + UNCORRECTABLE_STATUS, status | 1 << error as u32);
}

/// Sets a correctable error's status bit.
pub(super) fn correctable(map: &mut RegisterMap, at: usize, error: Correctable) {
    let status = map.get32(at + CORRECTABLE_STATUS);
    map.set32(at + CORRECTABLE_STATUS, status | 1 << error as u32);
}

/// Adds the structure. All errors are masked and fatal at reset.
pub(super) fn add(map: RegisterMap, at: usize) -> RegisterMap {
    map.w1c32(at + UNCORRECTABLE_STATUS, UNCORRECTABLE)
        .rw32(at + UNCORRECTABLE_MASK, UNCORRECTABLE, UNCORRECTABLE)
        .rw32(at + UNCORRECTABLE_SEVERITY, UNCORRECTABLE, UNCORRECTABLE)
        .w1c32(at + CORRECTABLE_STATUS, CORRECTABLE)
        .rw32(at + CORRECTABLE_MASK, CORRECTABLE, CORRECTABLE)
}
