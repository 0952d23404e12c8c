//! The PCI function, as the specification describes it.
//!
//! [`Type3`] is what a root port sees: configuration space and BAR0. Section numbers refer to CXL 3.1 unless another document is named.

mod background;
mod bar0;
pub mod cdat;
pub mod component;
pub mod config_space;
pub mod delay;
mod device_registers;
mod device_state;
pub mod doe;
pub mod dvsec;
pub mod event_record;
pub mod events;
pub mod failure;
pub mod hdm_decoder;
mod injector;
mod layout;
pub mod lost_interrupts;
mod mailbox;
mod msix;
pub mod ras;
pub mod registers;
pub mod vectors;
mod watermark;

use std::sync::Arc;

use self::{
    bar0::{BLOCK_SIZE, Bar0, COMPONENT_REGISTERS, MSIX_TABLE},
    cdat::Cdat,
    component::ComponentRegisters,
    config_space::ConfigSpace,
    device_registers::DeviceRegisters,
    hdm_decoder::Decoder,
    lost_interrupts::LossyMsix,
    msix::MsixTable,
};
pub use self::{injector::Injector, mailbox::payload_size::PayloadSize};
use crate::hdm::media::Media;

/// The destination of interrupts. Masks and addresses of the vectors belong to the implementation.
pub trait Msix: Send + Sync {
    /// Signals a vector once. Returns false if the vector is not armed, in which case the edge is lost.
    fn raise(&self, vector: u16) -> bool;
}

/// The configuration of a function.
#[derive(Clone, Debug, Default)]
pub struct Type3Config {
    /// PCIe device serial number, and so the memory device's serial in Linux.
    pub serial: u64,
    /// The CDAT. None: one volatile range, of the usual [`Performance`](cdat::Performance).
    pub cdat: Option<Cdat>,
    /// Size of the mailbox's payload registers.
    pub mailbox_payload: PayloadSize,
}

/// The Type-3 function.
pub struct Type3 {
    capacity: u64,
    bar0: Bar0,
    config_space: ConfigSpace,
    component: Arc<ComponentRegisters>,
    device: DeviceRegisters,
    msix_table: MsixTable,
    msix: Arc<LossyMsix>,
}

impl Type3 {
    /// Configuration space's size in bytes.
    pub const CONFIG_SIZE: u64 = 4096;
    /// MSI-X vectors.
    pub const VECTORS: u16 = vectors::COUNT;

    /// A function in its reset state, in front of this medium. Listens to the medium's events.
    pub fn new(config: &Type3Config, media: Arc<Media>, msix: Arc<dyn Msix>) -> Arc<Self> {
        let capacity = media.capacity();
        let msix = Arc::new(LossyMsix::new(msix));
        let component = Arc::new(ComponentRegisters::new(capacity));
        let payload = config.mailbox_payload;
        let device = DeviceRegisters::new(media, Arc::clone(&component), msix.clone(), payload);
        Arc::new(Self {
            capacity,
            bar0: Bar0::new(payload),
            config_space: ConfigSpace::new(config, capacity, msix.clone()),
            component,
            device,
            msix_table: MsixTable::new(),
            msix,
        })
    }

    /// BAR0's size in bytes.
    pub fn bar0_size(&self) -> u64 {
        self.bar0.size()
    }

    /// BAR2's size in bytes: the next power of two *above* the capacity.
    pub fn bar2_size(&self) -> u64 {
        config_space::bar2_size(self.capacity)
    }

    /// The bus address BAR2 decodes, once software has given it one and enabled memory space.
    pub fn bar2_address(&self) -> Option<u64> {
        self.config_space.bar2_address()
    }

    /// The committed HDM decoders, lowest first.
    pub fn decoders(&self) -> Vec<Decoder> {
        self.component.decoders()
    }

    /// Reads configuration space (4096 bytes). The range is inside it.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    /// Writes configuration space. The range is inside it.
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        if self.config_space.write(offset, data) {
            self.function_level_reset();
        }
    }

    /// Reads BAR0. The range is inside it.
    pub fn bar0_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for_each_block(self.bar0, offset, data.len(), |block, at, range| {
            let data = &mut data[range];
            match block {
                Block::Component => self.component.read(at, data),
                Block::Device => self.device.read(at, data),
                Block::MsixTable => self.msix_table.read(at, data),
                // No vector is ever pending here: the client keeps the pending bits.
                Block::None => {}
            }
        });
    }

    /// Writes BAR0. The range is inside it.
    pub fn bar0_write(&self, offset: u64, data: &[u8]) {
        for_each_block(self.bar0, offset, data.len(), |block, at, range| {
            let data = &data[range];
            match block {
                Block::Component => self.component.write(at, data, self.bar2_address()),
                Block::Device => self.device.write(at, data),
                Block::MsixTable => self.msix_table.write(at, data),
                Block::None => {}
            }
        });
    }

    /// Conventional reset: registers back to their reset values. The medium keeps its contents, the logs their records.
    pub fn reset(&self) {
        self.config_space.reset();
        self.component.reset();
        self.device.reset();
        self.msix_table.reset();
    }

    /// The power comes on. The medium must have been cleared before.
    pub fn power_on(&self) {
        self.reset();
        self.device.power_on();
    }

    /// Function-level reset: like [`Self::reset`], but CXL.mem is not affected. HDM decoders, the CXL device DVSEC and their
    /// locks stay; Linux treats a decoder lost here as memory pulled from under it.
    fn function_level_reset(&self) {
        tracing::info!("function-level reset");
        self.config_space.function_level_reset();
        self.device.reset();
        self.msix_table.reset();
    }

    /// The client has armed a vector. Re-raises it if its condition still holds.
    pub fn vector_armed(&self, vector: u16) {
        self.device.vector_armed(vector);
    }
}

/// The registers at a place in BAR0.
enum Block {
    Component,
    Device,
    MsixTable,
    /// The pending bits, or nothing at all.
    None,
}

/// Splits an access to BAR0 at the block boundaries: calls with the block, the offset in it and the part of the data.
fn for_each_block(bar0: Bar0, offset: u64, length: usize, mut access: impl FnMut(Block, u64, std::ops::Range<usize>)) {
    let device = bar0.device();
    let mut done = 0;
    while done < length {
        let Some(offset) = offset.checked_add(done as u64) else { return };
        let part = (length - done).min((BLOCK_SIZE - offset % BLOCK_SIZE) as usize);
        let start = offset - offset % BLOCK_SIZE;
        let (block, from) = match u32::try_from(start) {
            _ if device.contains(&start) => (Block::Device, device.start),
            Ok(COMPONENT_REGISTERS) => (Block::Component, start),
            Ok(MSIX_TABLE) => (Block::MsixTable, start),
            _ => (Block::None, start),
        };
        access(block, offset - from, done..done + part);
        done += part;
    }
}
