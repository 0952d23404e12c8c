//! Configuration space as firmware and Linux walk it.

use std::sync::Arc;

use cxl_cram_device::cxl::{
    Msix, Type3Config,
    config_space::{ConfigSpace, bar2_size},
    dvsec::{self, cxl_device, flex_bus_port, gpf_device, register_locator},
};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
/// Above 4 GiB, so that sizes need their high half.
const CAPACITY: u64 = 5 * GIB + 256 * 1024 * 1024;
const SERIAL: u64 = 0x0123_4567_89ab_cdef;

struct NoInterrupts;

impl Msix for NoInterrupts {
    fn raise(&self, vector: u16) -> bool {
        panic!("nothing here signals, but vector {vector} was");
    }
}

struct Function(ConfigSpace);

impl Function {
    fn new() -> Self {
        let config = Type3Config { serial: SERIAL, ..Default::default() };
        Self(ConfigSpace::new(&config, CAPACITY, Arc::new(NoInterrupts)))
    }

    fn read(&self, offset: usize) -> u32 {
        let mut data = [0; 4];
        self.0.read(offset as u64, &mut data);
        u32::from_le_bytes(data)
    }

    fn read16(&self, offset: usize) -> u16 {
        let mut data = [0; 2];
        self.0.read(offset as u64, &mut data);
        u16::from_le_bytes(data)
    }

    fn write(&self, offset: usize, value: u32) {
        assert!(!self.0.write(offset as u64, &value.to_le_bytes()), "no function-level reset was asked for");
    }

    fn write16(&self, offset: usize, value: u16) -> bool {
        self.0.write(offset as u64, &value.to_le_bytes())
    }

    fn image(&self) -> Vec<u8> {
        let mut data = vec![0; 4096];
        self.0.read(0, &mut data);
        data
    }

    /// (id, offset) of the capability list.
    fn capabilities(&self) -> Vec<(u8, usize)> {
        let mut list = vec![];
        let mut at = self.read(0x34) as usize & 0xff;
        while at != 0 {
            assert!(list.len() < 48, "the list has a loop");
            let header = self.read(at);
            list.push((header as u8, at));
            at = (header >> 8) as usize & 0xff;
        }
        list
    }

    /// (id, offset) of the extended capability list.
    fn extended_capabilities(&self) -> Vec<(u16, usize)> {
        let mut list = vec![];
        let mut at = 0x100;
        while at != 0 {
            assert!(list.len() < 480, "the list has a loop");
            let header = self.read(at);
            assert_ne!(header >> 16 & 0xf, 0, "capability {header:#x} at {at:#x} has no version");
            list.push((header as u16, at));
            at = (header >> 20) as usize;
        }
        list
    }

    fn extended(&self, id: u16) -> usize {
        self.extended_capabilities().into_iter().find(|(found, _)| *found == id).expect("the capability exists").1
    }

    fn dvsec(&self, id: u16) -> usize {
        let dvsecs = self.extended_capabilities().into_iter().filter(|(found, _)| *found == 0x23);
        let mut found = dvsecs
            .filter(|(_, at)| self.read(at + 4) & 0xffff == u32::from(dvsec::CXL_VENDOR) && self.read16(at + 8) == id);
        found.next().expect("the DVSEC exists").1
    }
}

fn assert_disjoint(mut spans: Vec<(usize, usize)>, within: std::ops::Range<usize>) {
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "capabilities at {:#x} and {:#x} overlap", pair[0].0, pair[1].0);
    }
    for (at, length) in spans {
        assert!(within.start <= at && at + length <= within.end && at % 4 == 0);
    }
}

#[test]
fn it_is_the_memory_device_both_drivers_match() {
    let function = Function::new();
    assert_eq!(function.read(0x00), 0x0d93_8086);
    assert_eq!(function.read(0x08) >> 8, 0x050210, "CXL memory device class, which cxl_pci matches");
    assert_eq!(function.read(0x0c) >> 16 & 0xff, 0, "type 0 header, one function");
    assert_ne!(function.read(0x2c), 0);
}

#[test]
fn capabilities_are_correctly_chained_and_do_not_overlap() {
    let function = Function::new();
    let list = function.capabilities();
    assert_eq!(list.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0x10, 0x11]);
    let length = |id| if id == 0x10 { 0x3c } else { 0xc };
    assert_disjoint(list.into_iter().map(|(id, at)| (at, length(id))).collect(), 0x40..0x100);
}

#[test]
fn extended_capabilities_are_correctly_chained_and_do_not_overlap() {
    let function = Function::new();
    let spans = function.extended_capabilities().into_iter().map(|(id, at)| {
        let length = match id {
            0x01 => 0x48,
            0x03 => 0x0c,
            0x23 => (function.read(at + 4) >> 20) as usize,
            0x2e => 0x18,
            other => panic!("unexpected capability {other:#x}"),
        };
        (at, length)
    });
    let spans: Vec<_> = spans.collect();
    assert_eq!(spans.len(), 7);
    assert_disjoint(spans, 0x100..0x1000);
}

#[test]
fn the_serial_number_is_the_configured_one() {
    let function = Function::new();
    let at = function.extended(0x03);
    assert_eq!(u64::from(function.read(at + 8)) << 32 | u64::from(function.read(at + 4)), SERIAL);
}

#[test]
fn bars_are_sized_by_writing_all_ones() {
    let function = Function::new();
    let size = |bar: usize| {
        let flags = function.read(bar) & 0xf;
        function.write(bar, u32::MAX);
        function.write(bar + 4, u32::MAX);
        let mask = u64::from(function.read(bar + 4)) << 32 | u64::from(function.read(bar)) & !0xf;
        assert_eq!(function.read(bar) & 0xf, flags);
        (flags, mask.wrapping_neg())
    };
    assert_eq!(size(0x10), (0x4, 0x40000), "64-bit, not prefetchable");
    assert_eq!(size(0x18), (0xc, 8 * GIB), "64-bit, prefetchable");
    function.write(0x20, u32::MAX);
    assert_eq!(function.read(0x20), 0, "BAR4 is not implemented");
}

#[test]
fn the_hdm_bar_is_always_larger_than_the_capacity() {
    assert_eq!(bar2_size(256 << 20), 512 << 20);
    assert_eq!(bar2_size(GIB), 2 * GIB);
    assert_eq!(bar2_size(GIB + (256 << 20)), 2 * GIB);
    assert_eq!(bar2_size(u64::MAX), 1 << 63);
}

#[test]
fn the_hdm_bar_has_an_address_once_memory_space_is_enabled() {
    let function = Function::new();
    function.write(0x18, 0);
    function.write(0x1c, 0xfe);
    assert_eq!(function.0.bar2_address(), None);
    assert!(!function.write16(0x04, 0x0006));
    assert_eq!(function.0.bar2_address(), Some(0xfe_0000_0000));
    function.0.reset();
    assert_eq!(function.0.bar2_address(), None);
}

#[test]
fn msix_offers_sixteen_vectors_in_bar0() {
    let function = Function::new();
    let (_, at) = function.capabilities()[1];
    assert_eq!(function.read16(at + 2), 15);
    assert_eq!((function.read(at + 4), function.read(at + 8)), (0x20000, 0x30000));
    assert!(!function.write16(at + 2, 0xffff));
    assert_eq!(function.read16(at + 2), 0xc00f, "enable and function mask stick, the size stays");
}

#[test]
fn the_link_is_up_at_its_full_speed_and_width() {
    let function = Function::new();
    let (_, at) = function.capabilities()[0];
    assert_eq!(function.read16(at + 2) & 0xff, 0x02, "version 2 endpoint");
    assert_eq!(function.read(at + 0x0c) & 0x3ff, 0x105, "32 GT/s x16");
    assert_eq!(function.read16(at + 0x12) & 0x3ff, 0x105);
}

#[test]
fn initiate_flr_is_reported_once_and_reads_zero() {
    let function = Function::new();
    let (_, at) = function.capabilities()[0];
    assert_ne!(function.read(at + 4) & 1 << 28, 0, "FLR capable");
    assert!(function.write16(at + 8, 0x8000 | 0x2810));
    assert_eq!(function.read16(at + 8), 0x2810);
    assert!(!function.write16(at + 8, 0x2810));
}

#[test]
fn a_function_level_reset_keeps_the_bars_and_the_cxl_configuration() {
    let function = Function::new();
    let device = function.dvsec(cxl_device::ID);
    function.write(0x18, 0);
    function.write(0x1c, 0xfe);
    function.write(0x04, 0x0006);
    assert!(!function.write16(device + cxl_device::CONTROL, 0x4));
    function.0.function_level_reset();
    assert_eq!(function.read16(0x04), 0);
    assert_eq!(function.read(0x1c), 0xfe);
    assert_eq!(function.read16(device + cxl_device::CONTROL), 0x6);
    function.0.reset();
    assert_eq!(function.read(0x1c), 0);
    assert_eq!(function.read16(device + cxl_device::CONTROL), 0x2);
}

#[test]
fn the_cxl_dvsec_describes_one_active_range_of_the_whole_capacity() {
    let function = Function::new();
    let at = function.dvsec(cxl_device::ID);
    assert_eq!(function.read(at + 4) >> 20, 0x3c);
    let capability = function.read16(at + cxl_device::CAPABILITY);
    assert_ne!(capability & 1 << 2, 0, "Mem_Capable");
    assert_eq!(capability >> 4 & 0x3, 1, "HDM_Count");
    let low = function.read(at + cxl_device::RANGE1_SIZE_LOW);
    assert_eq!(low & 0x3, 0x3, "valid and active");
    let size = u64::from(function.read(at + cxl_device::RANGE1_SIZE_HIGH)) << 32 | u64::from(low & 0xf000_0000);
    assert_eq!(size, CAPACITY);
    assert_eq!((function.read(at + 0x28), function.read(at + 0x2c)), (0, 0), "range 2 has no memory");
}

#[test]
fn mem_enable_is_writable_until_the_configuration_is_locked() {
    let function = Function::new();
    let at = function.dvsec(cxl_device::ID);
    assert!(!function.write16(at + cxl_device::CONTROL, 0x0004));
    assert_eq!(function.read16(at + cxl_device::CONTROL), 0x0006, "IO_Enable is always set");
    function.write(at + cxl_device::RANGE1_BASE_LOW, 0xffff_ffff);
    assert_eq!(function.read(at + cxl_device::RANGE1_BASE_LOW), 0xf000_0000);

    assert!(!function.write16(at + cxl_device::LOCK, 1));
    assert!(!function.write16(at + cxl_device::LOCK, 0));
    assert!(!function.write16(at + cxl_device::CONTROL, 0));
    function.write(at + cxl_device::RANGE1_BASE_LOW, 0);
    function.write(at + cxl_device::RANGE1_BASE_HIGH, 1);
    assert_eq!(function.read16(at + cxl_device::LOCK), 1);
    assert_eq!(function.read16(at + cxl_device::CONTROL), 0x0006);
    assert_eq!(function.read(at + cxl_device::RANGE1_BASE_LOW), 0xf000_0000);
    assert_eq!(function.read(at + cxl_device::RANGE1_BASE_HIGH), 0);

    function.0.function_level_reset();
    assert_eq!(function.read16(at + cxl_device::LOCK), 1, "only a conventional reset unlocks");
    function.0.reset();
    assert_eq!(function.read16(at + cxl_device::LOCK), 0);
    assert_eq!(function.read16(at + cxl_device::CONTROL), 0x0002);
}

#[test]
fn the_register_locator_finds_both_blocks_in_bar0() {
    let function = Function::new();
    let at = function.dvsec(register_locator::ID);
    let length = (function.read(at + 4) >> 20) as usize;
    let entries: Vec<_> = (register_locator::FIRST_ENTRY..length)
        .step_by(8)
        .map(|entry| {
            let low = function.read(at + entry);
            assert_eq!(function.read(at + entry + 4), 0);
            (low >> 8 & 0xff, low & 0x7, low & 0xffff_0000)
        })
        .collect();
    assert_eq!(entries, [(1, 0, 0), (3, 0, 0x10000)], "component, then device, as (id, BAR, offset)");
}

#[test]
fn flex_bus_trained_io_and_mem() {
    let function = Function::new();
    let at = function.dvsec(flex_bus_port::ID);
    assert_eq!(function.read16(at + flex_bus_port::STATUS) & 0x7, 0x6);
    assert_eq!(function.read(function.dvsec(gpf_device::ID) + 4) >> 20, 0x10);
}

/// Bytes that no software write may change: everything the walk above relies on.
fn constant_bytes(function: &Function) -> Vec<usize> {
    let capabilities = function.capabilities().into_iter().flat_map(|(_, at)| [at, at + 1]);
    let extended = function.extended_capabilities().into_iter().flat_map(|(_, at)| at..at + 4);
    let range1 = function.dvsec(cxl_device::ID) + cxl_device::RANGE1_SIZE_HIGH;
    let locator = function.dvsec(register_locator::ID);
    let header = (0..4).chain(8..12).chain([0x34]);
    header.chain(capabilities).chain(extended).chain(range1..range1 + 8).chain(locator..locator + 0x1c).collect()
}

proptest! {
    #[test]
    fn no_write_panics_or_changes_what_is_constant(
        writes in prop::collection::vec((0u64..4100, prop::collection::vec(any::<u8>(), 0..80)), 1..40)
    ) {
        struct Any;
        impl Msix for Any {
            fn raise(&self, _vector: u16) -> bool {
                true
            }
        }
        let function = Function(ConfigSpace::new(&Type3Config::default(), CAPACITY, Arc::new(Any)));
        let before = function.image();
        for (offset, data) in writes {
            if function.0.write(offset, &data) {
                function.0.function_level_reset();
            }
        }
        let after = function.image();
        for at in constant_bytes(&function) {
            prop_assert_eq!(before[at], after[at], "byte {:#x}", at);
        }
        function.0.reset();
        prop_assert_eq!(before, function.image());
    }
}
