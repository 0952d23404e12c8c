//! The MSI-X table (PCIe 6.0, 7.7.2). A vfio client keeps a table of its own; this one reads as written.

use parking_lot::Mutex;

use super::{registers::RegisterMap, vectors};

const ENTRY_SIZE: usize = 16;
/// Vector control: masked at reset.
const MASKED: u32 = 1;

/// The table.
pub(super) struct MsixTable(Mutex<RegisterMap>);

impl MsixTable {
    pub(super) fn new() -> Self {
        let size = usize::from(vectors::COUNT) * ENTRY_SIZE;
        let map = (0..size).step_by(ENTRY_SIZE).fold(RegisterMap::new(size), |map, entry| {
            map.rw64(entry, 0, !0x3).rw32(entry + 0x8, 0, u32::MAX).rw32(entry + 0xc, MASKED, MASKED)
        });
        Self(Mutex::new(map))
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.lock().read(usize::try_from(offset).unwrap_or(usize::MAX), data);
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        // Nothing acts on the table: interrupts are routed by the client.
        let _ = self.0.lock().write(usize::try_from(offset).unwrap_or(usize::MAX), data);
    }

    pub(super) fn reset(&self) {
        self.0.lock().reset();
    }
}
