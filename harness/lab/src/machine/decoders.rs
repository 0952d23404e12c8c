//! The HDM decoders that a machine's firmware commits before Linux starts, as a BIOS does that sets up CXL memory.
//!
//! A window is decoded twice: by the host bridge, which chooses the root port, and by the endpoint (CXL 3.1, section 8.2.4.20).
//! Linux takes what it finds committed: it makes the region by itself, and flushes no processor cache for it.

use clap::ValueEnum;
use cxl_cram_device::cxl::hdm_decoder::{
    BASE, COMMIT, CONTROL, DECODER_SIZE, ENABLE, FIRST_DECODER, GLOBAL_CONTROL, ID, LOCK_ON_COMMIT, SIZE,
    TARGET_HOST_ONLY, TARGET_LIST,
};

use super::learn::Bar;
use crate::guest::acpi::ssdt::{Value, Write};

/// CXL.cache/mem registers, as an offset in the component registers (8.2.3).
const CACHE_MEM: u64 = 0x1000;
/// CXL device control: CXL.mem is enabled (8.1.3.2).
const MEM_ENABLE: u16 = 1 << 2;

/// How Linux finds the HDM decoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Decoders {
    /// Not committed: Linux creates the regions
    #[default]
    Open,
    /// Committed by the firmware: each device is a region of its whole window
    Committed,
    /// Committed by the firmware, and locked until the next reset
    Locked,
}

/// The registers of a host bridge or an endpoint that hold its decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Guest physical address.
    pub(super) address: u64,
    /// Decoders.
    pub(super) count: usize,
}

/// The registers of an endpoint, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its decoders.
    pub(super) decoders: Structure,
    /// Guest physical address of its DVSEC's control register, and its content.
    pub(super) control: (u64, u16),
    /// The number of its root port.
    pub(super) port: u8,
}

/// What the firmware programs: one host bridge, and the endpoints below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// The host bridge's decoders.
    pub(super) bridge: Structure,
    /// The endpoints, in the order of the devices.
    pub(super) endpoints: Vec<Endpoint>,
}

impl Structure {
    /// Searches the capability array of component registers (8.2.4) for the HDM decoders. `read` reads 32 bits.
    pub(super) fn find<E>(component: u64, mut read: impl FnMut(u64) -> Result<u32, E>) -> Result<Option<Self>, E> {
        let array = component + CACHE_MEM;
        let entries = read(array)? >> 24;
        for entry in 1..=u64::from(entries) {
            let header = read(array + 4 * entry)?;
            if header & 0xffff == ID {
                let address = array + u64::from(header >> 20);
                let count = match read(address)? & 0xf {
                    0 => 1,
                    encoded @ 1..=5 => 2 * encoded as usize,
                    6 => 12,
                    7 => 14,
                    8 => 16,
                    _ => return Ok(None),
                };
                return Ok(Some(Self { address, count }));
            }
        }
        Ok(None)
    }

    /// Programs decoder `n`. `targets` is the target list; an endpoint has a DPA skip of 0 there.
    fn commit(self, n: usize, window: Bar, targets: u32, lock: bool) -> impl Iterator<Item = Write> {
        let decoder = self.address + (FIRST_DECODER + n * DECODER_SIZE) as u64;
        let lock = if lock { LOCK_ON_COMMIT } else { 0 };
        let registers = [
            (BASE, window.address as u32),
            (BASE + 4, (window.address >> 32) as u32),
            (SIZE, window.size as u32),
            (SIZE + 4, (window.size >> 32) as u32),
            (TARGET_LIST, targets),
            (TARGET_LIST + 4, 0),
            (CONTROL, TARGET_HOST_ONLY | COMMIT | lock),
        ];
        registers
            .into_iter()
            .map(move |(register, value)| Write { address: decoder + register as u64, value: Value::Dword(value) })
    }

    fn enable(self) -> Write {
        Write { address: self.address + GLOBAL_CONTROL as u64, value: Value::Dword(ENABLE) }
    }
}

impl Programmed {
    /// The writes that commit one decoder for each endpoint's window, there and in the host bridge.
    pub(super) fn commit(&self, windows: &[Bar], lock: bool) -> Vec<Write> {
        let mut pairs: Vec<_> = self.endpoints.iter().zip(windows).collect();
        // Decoders are committed in the order of their addresses.
        pairs.sort_by_key(|(_, window)| window.address);
        let mut writes = Vec::new();
        for (n, (endpoint, &window)) in pairs.into_iter().enumerate() {
            let (control, enabled) = endpoint.control;
            writes.push(Write { address: control, value: Value::Word(enabled | MEM_ENABLE) });
            writes.push(endpoint.decoders.enable());
            writes.extend(endpoint.decoders.commit(0, window, 0, lock));
            writes.extend(self.bridge.commit(n, window, u32::from(endpoint.port), lock));
        }
        writes.push(self.bridge.enable());
        writes
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn found(registers: &[(u64, u32)]) -> Option<Structure> {
        let value = |address| registers.iter().find(|(at, _)| *at == address).map_or(0, |(_, value)| *value);
        Structure::find(0x5c_0000_0000, |address| Ok::<_, Infallible>(value(address))).unwrap()
    }

    #[test]
    fn the_decoders_are_found_behind_other_capabilities() {
        let registers = [
            (0x5c_0000_1000, 0x0311_0001),
            (0x5c_0000_1004, 0x0801_0002),
            (0x5c_0000_1008, 0x1101_0005),
            (0x5c_0000_1110, 0x0000_1312),
        ];
        assert_eq!(found(&registers), Some(Structure { address: 0x5c_0000_1110, count: 4 }));
        assert_eq!(found(&registers[..2]), None, "a host bridge without decoders");
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[registers[0], registers[2], (0x5c_0000_1110, 0xf)]), None, "a reserved encoding");
    }

    #[test]
    fn each_window_is_decoded_by_its_endpoint_and_by_the_bridge_in_the_order_of_addresses() {
        let bridge = Structure { address: 0x1000, count: 4 };
        let endpoint =
            |at, port| Endpoint { decoders: Structure { address: at, count: 4 }, control: (at + 0x800, 2), port };
        let programmed = Programmed { bridge, endpoints: vec![endpoint(0x2000, 0), endpoint(0x3000, 1)] };
        let windows = [0x20_0000_0000, 0x10_0000_0000].map(|address| Bar { address, size: 0x1_3000_0000 });
        let writes = programmed.commit(&windows, true);
        let at = |address: u64| writes.iter().position(|write| write.address == address).unwrap();
        let value = |address: u64| writes[at(address)].value;
        assert_eq!(value(0x3014), Value::Dword(0x10));
        assert_eq!(value(0x1014), Value::Dword(0x10), "the second device's window is the lower one");
        assert_eq!((value(0x1024), value(0x1044)), (Value::Dword(1), Value::Dword(0)), "the root ports");
        assert_eq!((value(0x1018), value(0x101c)), (Value::Dword(0x3000_0000), Value::Dword(1)));
        assert_eq!((value(0x2800), value(0x3800)), (Value::Word(6), Value::Word(6)));
        assert_eq!((value(0x2020), value(0x1040)), (Value::Dword(0x1300), Value::Dword(0x1300)));
        assert!(at(0x1020) < at(0x1040), "decoder 0 is committed first");
        let open = programmed.commit(&windows, false);
        assert!(open.iter().any(|write| write.address == 0x2020 && write.value == Value::Dword(0x1200)));
    }
}
