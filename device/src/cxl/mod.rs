//! The PCI function, as the specification describes it.
//!
//! [`Type3`] is what a root port sees: configuration space and BAR0. Section numbers are of CXL 3.1 unless said.

pub mod registers;
pub mod vectors;

use std::sync::Arc;

use crate::hdm::media::Media;

/// Where an interrupt goes. The vector's mask and address are the other side's matter.
pub trait Msix: Send + Sync {
    /// Signals a vector once. Returns false when nobody listens to it now (the edge would be lost).
    fn raise(&self, vector: u16) -> bool;
}

/// What a function is made from.
#[derive(Clone, Debug)]
pub struct Type3Config {
    /// PCIe device serial number, and so the memory device's serial in Linux.
    pub serial: u64,
}

/// The Type-3 function.
pub struct Type3 {}

impl Type3 {
    /// BAR0's size in bytes.
    pub const BAR0_SIZE: u64 = 0x40000;
    /// MSI-X vectors.
    pub const VECTORS: u16 = 16;

    /// A function in its reset state, in front of this medium. Listens to the medium's events.
    pub fn new(_config: &Type3Config, _media: Arc<Media>, _msix: Arc<dyn Msix>) -> Arc<Self> {
        todo!()
    }

    /// BAR2's size in bytes: the next power of two *above* the capacity.
    pub fn bar2_size(&self) -> u64 {
        todo!()
    }

    /// Reads configuration space (4096 bytes). The range is inside it.
    pub fn config_read(&self, _offset: u64, _data: &mut [u8]) {
        todo!()
    }

    /// Writes configuration space. The range is inside it.
    pub fn config_write(&self, _offset: u64, _data: &[u8]) {
        todo!()
    }

    /// Reads BAR0. The range is inside it.
    pub fn bar0_read(&self, _offset: u64, _data: &mut [u8]) {
        todo!()
    }

    /// Writes BAR0. The range is inside it.
    pub fn bar0_write(&self, _offset: u64, _data: &[u8]) {
        todo!()
    }

    /// Function-level or bus reset: registers back to their reset values. The medium keeps its contents.
    pub fn reset(&self) {
        todo!()
    }

    /// The other side has just started to listen to a vector: what is still true is said again.
    pub fn vector_armed(&self, _vector: u16) {
        todo!()
    }
}
