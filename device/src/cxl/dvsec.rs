//! The CXL designated vendor-specific extended capabilities (8.1.3 to 8.1.9).
//!
//! Each function adds one DVSEC to a configuration space. Linux binds by the CXL device DVSEC and finds the register
//! blocks by the register locator.

use super::registers::{RegisterMap, Touched};

/// Vendor of every CXL DVSEC, and of CXL data objects.
pub const CXL_VENDOR: u16 = 0x1e98;

/// PCIe extended capability id of a DVSEC (PCIe 6.0, 7.9.6).
const DVSEC_CAPABILITY: u32 = 0x0023;

/// Register block identifiers of the register locator (8.1.9.1).
/// Component registers.
pub const BLOCK_COMPONENT: u32 = 1;
const BLOCK_DEVICE: u32 = 3;

/// The header every DVSEC starts with; the link to the next capability is made when the chain is complete.
fn header(map: RegisterMap, at: usize, id: u16, revision: u32, length: usize) -> RegisterMap {
    map.ro32(at, DVSEC_CAPABILITY | 1 << 16)
        .ro32(at + 0x4, u32::from(CXL_VENDOR) | revision << 16 | (length as u32) << 20)
        .ro16(at + 0x8, id)
}

/// PCIe DVSEC for CXL devices (8.1.3): what the device can do, and its memory as HDM ranges.
pub mod cxl_device {
    use super::*;

    /// DVSEC id.
    pub const ID: u16 = 0;
    /// Bytes.
    pub const LENGTH: usize = 0x3c;

    /// Capability: CXL.io, CXL.mem, the device initialises its memory by itself, one HDM range.
    pub const CAPABILITY: usize = 0x0a;
    /// Control; only Mem_Enable is writable.
    pub const CONTROL: usize = 0x0c;
    /// Status.
    pub const STATUS: usize = 0x0e;
    /// Lock: CONFIG_LOCK in bit 0.
    pub const LOCK: usize = 0x14;
    /// Range 1 size, high and low halves. The low half carries the attributes.
    pub const RANGE1_SIZE_HIGH: usize = 0x18;
    /// See [`RANGE1_SIZE_HIGH`].
    pub const RANGE1_SIZE_LOW: usize = 0x1c;
    /// Range 1 base, high and low halves.
    pub const RANGE1_BASE_HIGH: usize = 0x20;
    /// See [`RANGE1_BASE_HIGH`].
    pub const RANGE1_BASE_LOW: usize = 0x24;
    /// Range 2 base; the range itself has no memory.
    const RANGE2_BASE_HIGH: usize = 0x30;
    const RANGE2_BASE_LOW: usize = 0x34;

    const IO_CAPABLE: u16 = 1 << 1;
    const MEM_CAPABLE: u16 = 1 << 2;
    const MEM_HWINIT_MODE: u16 = 1 << 3;
    const ONE_HDM_RANGE: u16 = 1 << 4;
    const IO_ENABLE: u16 = 1 << 1;
    const MEM_ENABLE: u16 = 1 << 2;
    const VIRAL_STATUS: u16 = 1 << 14;
    const CONFIG_LOCK: u8 = 1 << 0;

    const MEMORY_INFO_VALID: u32 = 1 << 0;
    const MEMORY_ACTIVE: u32 = 1 << 1;
    /// Media type and memory class: "ask the CDAT".
    const MEDIA_TYPE_CDAT: u32 = 2 << 2;
    const MEMORY_CLASS_CDAT: u32 = 2 << 5;
    /// Sizes and bases are multiples of 256 MiB.
    const LOW_ADDRESS: u32 = 0xf000_0000;

    /// Adds the DVSEC of a device with `capacity` bytes of HDM.
    pub fn add(map: RegisterMap, at: usize, capacity: u64) -> RegisterMap {
        let attributes = MEMORY_INFO_VALID | MEMORY_ACTIVE | MEDIA_TYPE_CDAT | MEMORY_CLASS_CDAT;
        header(map, at, ID, 3, LENGTH)
            .ro16(at + CAPABILITY, IO_CAPABLE | MEM_CAPABLE | MEM_HWINIT_MODE | ONE_HDM_RANGE)
            .rw16(at + CONTROL, IO_ENABLE, MEM_ENABLE)
            .w1c16(at + STATUS, VIRAL_STATUS)
            .rw8(at + LOCK, 0, CONFIG_LOCK)
            .ro32(at + RANGE1_SIZE_HIGH, (capacity >> 32) as u32)
            .ro32(at + RANGE1_SIZE_LOW, capacity as u32 & LOW_ADDRESS | attributes)
            .rw32(at + RANGE1_BASE_HIGH, 0, u32::MAX)
            .rw32(at + RANGE1_BASE_LOW, 0, LOW_ADDRESS)
            .rw32(at + RANGE2_BASE_HIGH, 0, u32::MAX)
            .rw32(at + RANGE2_BASE_LOW, 0, LOW_ADDRESS)
    }

    /// After a write: once CONFIG_LOCK is set, it and what it covers are read-only until a conventional reset.
    pub fn written(map: &mut RegisterMap, at: usize, touched: Touched) {
        if touched.hits(at + LOCK, 1) && map.get8(at + LOCK) & CONFIG_LOCK != 0 {
            map.freeze(at + LOCK, 1);
            map.freeze(at + CONTROL, 2);
            map.freeze(at + RANGE1_BASE_HIGH, 8);
            map.freeze(at + RANGE2_BASE_HIGH, 8);
        }
    }
}

/// GPF DVSEC for CXL devices (8.1.7). The memory is volatile: global persistent flush takes no time and no power.
pub mod gpf_device {
    use super::*;

    /// DVSEC id.
    pub const ID: u16 = 5;
    /// Bytes.
    pub const LENGTH: usize = 0x10;

    /// Adds the DVSEC.
    pub fn add(map: RegisterMap, at: usize) -> RegisterMap {
        header(map, at, ID, 0, LENGTH)
    }
}

/// PCIe DVSEC for flex bus ports (8.1.8): the outcome of link training. CXL.io and CXL.mem, 68-byte flits.
pub mod flex_bus_port {
    use super::*;

    /// DVSEC id.
    pub const ID: u16 = 7;
    /// Bytes.
    pub const LENGTH: usize = 0x20;
    /// Capability.
    pub const CAPABILITY: usize = 0x0a;
    /// Control.
    pub const CONTROL: usize = 0x0c;
    /// Status.
    pub const STATUS: usize = 0x0e;

    const IO: u16 = 1 << 1;
    const MEM: u16 = 1 << 2;
    const FLIT_68B_AND_VH: u16 = 1 << 5;

    /// Adds the DVSEC.
    pub fn add(map: RegisterMap, at: usize) -> RegisterMap {
        let trained = IO | MEM | FLIT_68B_AND_VH;
        header(map, at, ID, 2, LENGTH)
            .ro16(at + CAPABILITY, trained)
            .ro16(at + CONTROL, trained)
            .ro16(at + STATUS, trained)
    }
}

/// Register locator DVSEC (8.1.9): where in the BARs the register blocks are.
pub mod register_locator {
    use super::*;

    /// DVSEC id.
    pub const ID: u16 = 8;
    /// Bytes: two entries.
    pub const LENGTH: usize = FIRST_ENTRY + 2 * ENTRY_SIZE;
    /// First entry: BAR 2:0, block id 15:8, offset 31:16 (multiples of 64 KiB); then the offset's high half.
    pub const FIRST_ENTRY: usize = 0x0c;
    const ENTRY_SIZE: usize = 8;

    /// Adds the DVSEC: both blocks are in BAR0, at these offsets.
    pub fn add(map: RegisterMap, at: usize, component: u32, device: u32) -> RegisterMap {
        let entry = |id: u32, offset: u32| offset & 0xffff_0000 | id << 8;
        header(map, at, ID, 0, LENGTH)
            .ro32(at + FIRST_ENTRY, entry(BLOCK_COMPONENT, component))
            .ro32(at + FIRST_ENTRY + ENTRY_SIZE, entry(BLOCK_DEVICE, device))
    }
}
