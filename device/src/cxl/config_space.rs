//! Configuration space: the header, the capability list and the extended capability list.
//!
//! Offsets and bits are those of PCIe 6.0, chapter 7; the CXL parts are in [`dvsec`] and [`doe`].

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    Msix, Type3Config, bar0,
    bar0::Bar0,
    cdat::{Cdat, Performance},
    doe::{self, Doe},
    dvsec,
    registers::{RegisterMap, Touched},
    vectors,
};

/// Bytes of configuration space.
pub const SIZE: usize = 4096;

const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION_AND_CLASS: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0c;
const BAR0: usize = 0x10;
const BAR2: usize = 0x18;
const BARS_END: usize = 0x28;
const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
const SUBSYSTEM_ID: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

/// PCI vendor id of the function.
pub const INTEL: u16 = 0x8086;
/// PCI device id of the function, which the compressed-RAM driver matches.
pub const COMPRESSED_MEMORY: u16 = 0x0d93;
/// CXL memory device, programming interface 10h, revision 1.
const CLASS: u32 = 0x0502_1001;

const COMMAND_MEMORY_SPACE: u16 = 1 << 1;
/// Memory space, bus master, parity, SERR#, interrupt disable.
const COMMAND_WRITABLE: u16 = 0x0546;
const STATUS_CAPABILITY_LIST: u16 = 1 << 4;
/// The error bits: parity, aborts, SERR#.
const STATUS_ERRORS: u16 = 0xf900;
const BAR_64BIT: u64 = 0x4;
const BAR_PREFETCHABLE: u64 = 0x8;

/// The capability list, in order.
const CAPABILITY_CHAIN: [usize; 2] = [PCI_EXPRESS, MSIX];
const PCI_EXPRESS: usize = 0x40;
const MSIX: usize = 0x80;

/// The extended capability list, in order; the first must be at 100h.
const EXTENDED_CHAIN: [usize; 7] =
    [SERIAL_NUMBER, CXL_DEVICE, REGISTER_LOCATOR, GPF_DEVICE, FLEX_BUS_PORT, DOE, ADVANCED_ERRORS];
const SERIAL_NUMBER: usize = 0x100;
const CXL_DEVICE: usize = 0x110;
const REGISTER_LOCATOR: usize = 0x150;
const GPF_DEVICE: usize = 0x170;
const FLEX_BUS_PORT: usize = 0x180;
const DOE: usize = 0x1a0;
const ADVANCED_ERRORS: usize = 0x200;

/// BAR2's size in bytes: the next power of two *above* the capacity, so that the CXL window nests under the BAR.
pub fn bar2_size(capacity: u64) -> u64 {
    // A capacity of 2^63 and more has no such power; the largest BAR there is stands in.
    capacity.checked_add(1).and_then(u64::checked_next_power_of_two).unwrap_or(1 << 63)
}

/// The function's configuration space.
pub struct ConfigSpace {
    state: Mutex<State>,
    msix: Arc<dyn Msix>,
}

struct State {
    map: RegisterMap,
    doe: Doe,
}

impl ConfigSpace {
    /// Configuration space in its reset state, for `capacity` bytes of HDM.
    pub fn new(config: &Type3Config, capacity: u64, msix: Arc<dyn Msix>) -> Self {
        let map = RegisterMap::new(SIZE);
        let bar0 = Bar0::new(config.mailbox_payload);
        let map = header(map, capacity, bar0.size());
        let map = pci_express(map);
        let map = msix_capability(map);
        let map = serial_number(map, config.serial);
        let map = dvsec::cxl_device::add(map, CXL_DEVICE, capacity);
        let map =
            dvsec::register_locator::add(map, REGISTER_LOCATOR, bar0::COMPONENT_REGISTERS, bar0.device_registers());
        let map = dvsec::gpf_device::add(map, GPF_DEVICE);
        let map = dvsec::flex_bus_port::add(map, FLEX_BUS_PORT);
        let map = doe::add(map, DOE);
        let map = advanced_errors(map);
        let map = link_extended_capabilities(link_capabilities(map));
        let cdat = config.cdat.clone().unwrap_or_else(|| Cdat::new(capacity, &Performance::default()));
        let doe = Doe::new(DOE, cdat);
        Self { state: Mutex::new(State { map, doe }), msix }
    }

    /// Reads; bytes past the end are 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.state.lock().map.read(usize::try_from(offset).unwrap_or(usize::MAX), data);
    }

    /// Writes; bytes past the end are ignored. Returns true when software asked for a function-level reset, which the
    /// caller carries out.
    #[must_use]
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let (signal, function_level_reset) = {
            let State { map, doe } = &mut *self.state.lock();
            let touched = map.write(usize::try_from(offset).unwrap_or(usize::MAX), data);
            dvsec::cxl_device::written(map, CXL_DEVICE, touched);
            (doe.written(map, touched), take_initiate_flr(map, touched))
        };
        if signal {
            self.msix.raise(vectors::DOE);
        }
        function_level_reset
    }

    /// Conventional reset: every register.
    pub fn reset(&self) {
        let State { map, doe } = &mut *self.state.lock();
        map.reset();
        doe.reset();
    }

    /// Function-level reset. It leaves the CXL device DVSEC alone (CXL 3.1, 9.5: no effect on CXL.mem), and the BARs:
    /// a vfio client keeps those itself and does not write them again.
    pub fn function_level_reset(&self) {
        let State { map, doe } = &mut *self.state.lock();
        map.reset_range(0, BAR0);
        map.reset_range(BARS_END, CXL_DEVICE - BARS_END);
        let after = CXL_DEVICE + dvsec::cxl_device::LENGTH;
        map.reset_range(after, SIZE - after);
        doe.reset();
    }

    /// The bus address BAR2 decodes, once software has given it one and enabled memory space.
    pub fn bar2_address(&self) -> Option<u64> {
        let State { map, .. } = &*self.state.lock();
        let address = map.get64(BAR2) & !0xf;
        (address != 0 && map.get16(COMMAND) & COMMAND_MEMORY_SPACE != 0).then_some(address)
    }
}

/// The type 0 header (7.5.1).
fn header(map: RegisterMap, capacity: u64, bar0_size: u64) -> RegisterMap {
    map.ro16(VENDOR_ID, INTEL)
        .ro16(DEVICE_ID, COMPRESSED_MEMORY)
        .rw16(COMMAND, 0, COMMAND_WRITABLE)
        .w1c16(STATUS, STATUS_ERRORS)
        .ro8(STATUS, STATUS_CAPABILITY_LIST as u8)
        .ro32(REVISION_AND_CLASS, CLASS)
        .rw8(CACHE_LINE_SIZE, 0, 0xff)
        // The address bits below the size read 0: software sizes a BAR by writing all ones.
        .rw64(BAR0, BAR_64BIT, !(bar0_size - 1))
        .rw64(BAR2, BAR_64BIT | BAR_PREFETCHABLE, !(bar2_size(capacity) - 1))
        .ro16(SUBSYSTEM_VENDOR_ID, INTEL)
        .ro16(SUBSYSTEM_ID, COMPRESSED_MEMORY)
        .rw8(INTERRUPT_LINE, 0, 0xff)
}

const DEVICE_CONTROL: usize = PCI_EXPRESS + 0x08;
const INITIATE_FLR: u16 = 1 << 15;

/// PCI Express capability (7.5.3): an endpoint with function-level reset, on a trained 32 GT/s x16 link.
fn pci_express(map: RegisterMap) -> RegisterMap {
    const CAPABILITY_ID: u8 = 0x10;
    /// Version 2, PCI Express endpoint.
    const ENDPOINT: u16 = 0x0002;
    const ROLE_BASED_ERRORS: u32 = 1 << 15;
    const FLR: u32 = 1 << 28;
    /// Relaxed ordering, no snoop, read requests up to 512 bytes.
    const DEVICE_CONTROL_RESET: u16 = 0x2810;
    const SPEED_32GT: u32 = 5;
    const WIDTH_16: u32 = 16 << 4;
    /// Supported link speeds, 2.5 to 32 GT/s.
    const SPEEDS: u32 = 0x3e;

    map.ro8(PCI_EXPRESS, CAPABILITY_ID)
        .ro16(PCI_EXPRESS + 0x02, ENDPOINT)
        .ro32(PCI_EXPRESS + 0x04, ROLE_BASED_ERRORS | FLR)
        .rw16(DEVICE_CONTROL, DEVICE_CONTROL_RESET, 0x78ff | INITIATE_FLR)
        .w1c16(PCI_EXPRESS + 0x0a, 0x000f)
        .ro32(PCI_EXPRESS + 0x0c, SPEED_32GT | WIDTH_16)
        .rw16(PCI_EXPRESS + 0x10, 0, 0x00c8)
        .ro16(PCI_EXPRESS + 0x12, (SPEED_32GT | WIDTH_16) as u16)
        .rw16(PCI_EXPRESS + 0x28, 0, 0x001f)
        .ro32(PCI_EXPRESS + 0x2c, SPEEDS)
        .rw16(PCI_EXPRESS + 0x30, SPEED_32GT as u16, 0x000f)
}

/// Initiate FLR always reads 0 (7.5.3.4). Returns whether it was set.
fn take_initiate_flr(map: &mut RegisterMap, touched: Touched) -> bool {
    let control = map.get16(DEVICE_CONTROL);
    map.set16(DEVICE_CONTROL, control & !INITIATE_FLR);
    touched.hits(DEVICE_CONTROL, 2) && control & INITIATE_FLR != 0
}

/// MSI-X capability (7.7.2). Enable and function mask are writable.
fn msix_capability(map: RegisterMap) -> RegisterMap {
    const CAPABILITY_ID: u8 = 0x11;
    map.ro8(MSIX, CAPABILITY_ID)
        .rw16(MSIX + 0x2, vectors::COUNT - 1, 0xc000)
        .ro32(MSIX + 0x4, bar0::MSIX_TABLE)
        .ro32(MSIX + 0x8, bar0::MSIX_PBA)
}

/// Device serial number (7.9.3).
fn serial_number(map: RegisterMap, serial: u64) -> RegisterMap {
    const CAPABILITY_ID: u32 = 0x0003;
    map.ro32(SERIAL_NUMBER, CAPABILITY_ID | 1 << 16).ro64(SERIAL_NUMBER + 0x4, serial)
}

/// Advanced error reporting (7.8.4). Nothing here raises a PCIe error; software still programs masks and severities.
fn advanced_errors(map: RegisterMap) -> RegisterMap {
    const CAPABILITY_ID: u32 = 0x0001;
    /// Every uncorrectable error an endpoint can have.
    const UNCORRECTABLE: u32 = 0x005f_f010;
    /// Internal errors are masked at reset.
    const UNCORRECTABLE_MASK_RESET: u32 = 0x0040_0000;
    /// Protocol, flow control, overflow, malformed TLP and internal errors are fatal at reset.
    const UNCORRECTABLE_SEVERITY_RESET: u32 = 0x0046_2010;
    /// Every correctable error an endpoint can have.
    const CORRECTABLE: u32 = 0x0000_71c1;
    /// Advisory non-fatal and internal errors are masked at reset.
    const CORRECTABLE_MASK_RESET: u32 = 0x0000_6000;

    map.ro32(ADVANCED_ERRORS, CAPABILITY_ID | 2 << 16)
        .w1c32(ADVANCED_ERRORS + 0x04, UNCORRECTABLE)
        .rw32(ADVANCED_ERRORS + 0x08, UNCORRECTABLE_MASK_RESET, UNCORRECTABLE)
        .rw32(ADVANCED_ERRORS + 0x0c, UNCORRECTABLE_SEVERITY_RESET, UNCORRECTABLE)
        .w1c32(ADVANCED_ERRORS + 0x10, CORRECTABLE)
        .rw32(ADVANCED_ERRORS + 0x14, CORRECTABLE_MASK_RESET, CORRECTABLE)
}

/// Each capability's byte 1 points to the next, 0 ends the list.
fn link_capabilities(map: RegisterMap) -> RegisterMap {
    let next = CAPABILITY_CHAIN.into_iter().skip(1).chain([0]);
    CAPABILITY_CHAIN
        .into_iter()
        .zip(next)
        .fold(map.ro8(CAPABILITIES, CAPABILITY_CHAIN[0] as u8), |map, (at, next)| map.ro8(at + 1, next as u8))
}

/// Bits 31:20 of each extended capability's header point to the next, 0 ends the list.
fn link_extended_capabilities(map: RegisterMap) -> RegisterMap {
    let next = EXTENDED_CHAIN.into_iter().skip(1).chain([0]);
    EXTENDED_CHAIN.into_iter().zip(next).fold(map, |map, (at, next)| {
        let header = map.get32(at) | (next as u32) << 20;
        map.ro32(at, header)
    })
}
