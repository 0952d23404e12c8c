//! Reads and writes of configuration space, at any offset and of any length inside it.
//!
//! The input is a sequence of accesses: a byte whose top bit means *write* and whose low bits are the length less one, two
//! bytes of offset, and for a write the data.

#![no_main]

use cxl_cram_device::cxl::Type3;
use cxl_cram_device_fuzz::{Bytes, DEVICE};
use libfuzzer_sys::fuzz_target;

const WRITE: u8 = 1 << 7;

fuzz_target!(|input: &[u8]| {
    DEVICE.function.reset();
    let mut bytes = Bytes(input);
    while !bytes.is_empty() {
        let kind = bytes.u8();
        let length = u64::from(kind & !WRITE) + 1;
        let offset = u64::from(bytes.u16()) % (Type3::CONFIG_SIZE - length + 1);
        let mut data = vec![0; length as usize];
        if kind & WRITE != 0 {
            let given = bytes.slice(data.len());
            data[..given.len()].copy_from_slice(given);
            DEVICE.function.config_write(offset, &data);
        } else {
            DEVICE.function.config_read(offset, &mut data);
        }
    }

    let mut id = [0; 4];
    DEVICE.function.config_read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x0d93_8086, "the identity of the function changed");
    if let Some(address) = DEVICE.function.bar2_address() {
        assert!(address.is_multiple_of(DEVICE.function.bar2_size()), "BAR2 decodes {address:#x}, which is not aligned");
    }
});
