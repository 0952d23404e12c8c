//! The whole function: BAR0's blocks side by side, and the two kinds of reset.

use std::sync::Arc;

use cxl_cram_device::{
    cxl::{Msix, Type3, Type3Config},
    hdm::media::{Media, MediaConfig, Threshold, Watermarks},
    store::Codec,
};
use proptest::prelude::*;

const CAPACITY: u64 = 512 << 20;
const WINDOW: u64 = 0x40_0000_0000;

/// BAR0: decoder 0's base, size and control.
const BASE_HIGH: u64 = 0x1214;
const SIZE_LOW: u64 = 0x1218;
const CONTROL: u64 = 0x1220;
const COMMIT_HOST_ONLY: u32 = 1 << 12 | 1 << 9;

/// Configuration space: PCI Express device control.
const DEVICE_CONTROL: u64 = 0x48;
const INITIATE_FLR: u16 = 1 << 15;

struct AnyInterrupt;

impl Msix for AnyInterrupt {
    fn raise(&self, _vector: u16) -> bool {
        true
    }
}

fn function() -> Arc<Type3> {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let media = MediaConfig { capacity: CAPACITY, physical: 64 << 20, codec: Codec::Lz4, watermarks };
    Type3::new(&Type3Config::default(), Media::new(&media).expect("the configuration is sound"), Arc::new(AnyInterrupt))
}

fn read(function: &Type3, offset: u64) -> u32 {
    let mut data = [0; 4];
    function.bar0_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn commit(function: &Type3) {
    for (register, value) in
        [(BASE_HIGH, (WINDOW >> 32) as u32), (SIZE_LOW, CAPACITY as u32), (CONTROL, COMMIT_HOST_ONLY)]
    {
        function.bar0_write(register, &value.to_le_bytes());
    }
    assert_eq!(function.decoders().len(), 1);
}

#[test]
fn the_hdm_decoder_is_reached_through_bar0() {
    let function = function();
    commit(&function);
    let decoder = &function.decoders()[0];
    assert_eq!((decoder.hpa.clone(), decoder.dpa.clone()), (WINDOW..WINDOW + CAPACITY, 0..CAPACITY));
    assert_eq!(function.bar2_size(), 2 * CAPACITY);
}

#[test]
fn once_bar2_has_an_address_a_decoder_for_another_is_not_committed() {
    const COMMITTED: u32 = 1 << 10;
    let function = function();
    function.config_write(0x18, &(2 * WINDOW).to_le_bytes());
    function.config_write(0x04, &[0x06, 0x00]);
    assert_eq!(function.bar2_address(), Some(2 * WINDOW));
    for (base, committed) in [(WINDOW, 0), (2 * WINDOW, COMMITTED)] {
        for (register, value) in [
            (CONTROL, 0),
            (BASE_HIGH, (base >> 32) as u32),
            (BASE_HIGH - 4, base as u32),
            (SIZE_LOW, CAPACITY as u32),
            (CONTROL, COMMIT_HOST_ONLY),
        ] {
            function.bar0_write(register, &value.to_le_bytes());
        }
        assert_eq!(read(&function, CONTROL) & COMMITTED, committed, "base {base:#x}");
    }
}

#[test]
fn a_function_level_reset_keeps_memory_decoded_and_a_conventional_one_does_not() {
    let function = function();
    commit(&function);
    function.config_write(0x04, &[0x06, 0x00]);
    function.config_write(DEVICE_CONTROL, &INITIATE_FLR.to_le_bytes());
    let mut command = [0xff; 2];
    function.config_read(0x04, &mut command);
    assert_eq!(command, [0, 0], "the function is reset");
    assert_eq!(function.decoders().len(), 1, "CXL.mem goes on");
    function.reset();
    assert!(function.decoders().is_empty());
}

#[test]
fn the_msix_table_reads_as_written_and_starts_masked() {
    let function = function();
    let last = 0x20000 + 15 * 16;
    assert_eq!(read(&function, last + 0xc), 1);
    function.bar0_write(last, &0xfee0_0003_u32.to_le_bytes());
    function.bar0_write(last + 0xc, &[0; 4]);
    assert_eq!((read(&function, last), read(&function, last + 0xc)), (0xfee0_0000, 0));
    assert_eq!(read(&function, 0x30000), 0, "nothing is pending");
    function.reset();
    assert_eq!(read(&function, last + 0xc), 1);
}

#[test]
fn an_access_across_two_blocks_reaches_both() {
    let function = function();
    function.bar0_write(0x1fffe, &[0xff; 8]);
    let mut data = [0xee; 8];
    function.bar0_read(0x1fffe, &mut data);
    assert_eq!(data[2..], [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff], "vector 0's address follows the device registers");
}

#[test]
fn accesses_past_the_end_read_zero() {
    let function = function();
    let size = function.bar0_size();
    for offset in [size - 4, size, u64::MAX - 3, u64::MAX] {
        let mut data = [0xee; 8];
        function.bar0_write(offset, &data);
        function.bar0_read(offset, &mut data);
        assert_eq!(data, [0; 8], "at {offset:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_access_panics(
        accesses in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0u64..0x41000, prop::collection::vec(any::<u8>(), 0..40)),
            1..60,
        )
    ) {
        let function = function();
        for (config, write, offset, mut data) in accesses {
            match (config, write) {
                (true, true) => function.config_write(offset % 4096, &data),
                (true, false) => function.config_read(offset % 4096, &mut data),
                (false, true) => function.bar0_write(offset, &data),
                (false, false) => function.bar0_read(offset, &mut data),
            }
        }
    }
}
