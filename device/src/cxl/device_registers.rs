//! The device register block (CXL 3.1, 8.2.8): capability array, device status, primary mailbox, memory device status,
//! and the vendor's occupancy block.
//!
//! [`capabilities`] is a table of its own instead of a [`RegisterMap`](super::registers::RegisterMap): a map stores values and
//! write masks, while every value here is computed when it is read and nothing but the mailbox takes writes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    Msix,
    component::ComponentRegisters,
    device_state::DeviceState,
    layout::{Layout, copy_overlap},
    mailbox::{self, Mailbox, payload_size::PayloadSize, vendor},
};
use crate::hdm::media::Media;

/// Capability ids.
const DEVICE_STATUS: u16 = 0x0001;
const PRIMARY_MAILBOX: u16 = 0x0002;
const MEMORY_DEVICE_STATUS: u16 = 0x4000;
/// Vendor-specific ids begin at 8000h.
const OCCUPANCY: u16 = 0x8000;

/// Where the mailbox starts. It is the last capability.
pub(super) const MAILBOX: u64 = 0x200;
/// Where each capability is, from the block's start, and how long: the table behind the capability array.
fn capabilities(payload: PayloadSize) -> [(u16, u64, u64); 4] {
    [
        (DEVICE_STATUS, 0x080, 8),
        (MEMORY_DEVICE_STATUS, 0x090, 8),
        (OCCUPANCY, 0x100, vendor::OCCUPANCY_SIZE as u64),
        (PRIMARY_MAILBOX, MAILBOX, mailbox::size(payload)),
    ]
}

/// Memory device status: media status 3:2, mailbox interfaces ready 4.
const MEDIA_READY: u64 = 1 << 2;
const MEDIA_DISABLED: u64 = 3 << 2;
const MAILBOX_READY: u64 = 1 << 4;

/// The device register block, 64 KiB or more.
pub(super) struct DeviceRegisters {
    state: Arc<DeviceState>,
    mailbox: Mailbox,
    capabilities: [(u16, u64, u64); 4],
    array: Vec<u8>,
    /// What the occupancy block reads as: taken anew when its first byte is read, so that the registers fit together.
    occupancy: Mutex<[u8; vendor::OCCUPANCY_SIZE]>,
}

impl DeviceRegisters {
    /// A block in its reset state that listens to the medium. The Component State Dump is of `component`.
    pub(super) fn new(
        media: Arc<Media>,
        component: Arc<ComponentRegisters>,
        msix: Arc<dyn Msix>,
        payload: PayloadSize,
    ) -> Self {
        let state = Arc::new(DeviceState::new(Arc::clone(&media), component, msix, payload));
        // Weak: the state holds the medium, and the medium must not hold the state.
        let listener = Arc::downgrade(&state);
        media.add_listener(move |event| {
            if let Some(state) = listener.upgrade() {
                state.media_event(event);
            }
        });
        let mailbox = Mailbox::new(Arc::clone(&state));
        let capabilities = capabilities(payload);
        Self {
            state,
            mailbox,
            array: capability_array(capabilities),
            capabilities,
            occupancy: Mutex::new([0; vendor::OCCUPANCY_SIZE]),
        }
    }

    /// Reads at an offset in the block; reserved bytes read 0.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        copy_overlap(0, &self.array, offset, data);
        let end = offset.saturating_add(data.len() as u64);
        for (id, start, length) in self.capabilities {
            if end <= start || offset >= start + length {
                continue;
            }
            match id {
                DEVICE_STATUS => copy_overlap(start, &self.state.logs.status_register().to_le_bytes(), offset, data),
                MEMORY_DEVICE_STATUS => copy_overlap(start, &self.memory_device_status().to_le_bytes(), offset, data),
                OCCUPANCY => copy_overlap(start, &self.occupancy(offset <= start), offset, data),
                _ => {
                    // The part of the read from the mailbox's start on. The part before it has been read above.
                    let skip = start.saturating_sub(offset) as usize;
                    self.mailbox.read(offset.saturating_sub(start), &mut data[skip..]);
                }
            }
        }
    }

    /// Writes at an offset in the block. Only the mailbox takes any.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let skip = MAILBOX.saturating_sub(offset) as usize;
        if let Some(data) = data.get(skip..) {
            self.mailbox.write(offset.saturating_sub(MAILBOX), data);
        }
    }

    /// Registers and clock at their reset values; a background operation is stopped, a late command cancelled. Medium and logs are left alone.
    pub(super) fn reset(&self) {
        // The mailbox first: a late command might start a background operation.
        self.mailbox.reset();
        self.state.reset();
        *self.occupancy.lock() = [0; vendor::OCCUPANCY_SIZE];
    }

    /// Power-on, after the medium was cleared: as a reset, and the logs are empty.
    pub(super) fn power_on(&self) {
        self.reset();
        self.state.power_on();
    }

    /// The client has armed this vector.
    pub(super) fn vector_armed(&self, vector: u16) {
        self.state.vector_armed(vector);
    }

    /// The state behind the registers.
    pub(super) fn state(&self) -> &DeviceState {
        &self.state
    }

    fn memory_device_status(&self) -> u64 {
        MAILBOX_READY | if self.state.media_is_disabled() { MEDIA_DISABLED } else { MEDIA_READY }
    }

    fn occupancy(&self, anew: bool) -> [u8; vendor::OCCUPANCY_SIZE] {
        if anew {
            // Not under the lock: it waits for the window.
            let occupancy = vendor::occupancy(&self.state.media);
            *self.occupancy.lock() = occupancy;
        }
        *self.occupancy.lock()
    }
}

impl Drop for DeviceRegisters {
    fn drop(&mut self) {
        self.mailbox.reset();
        self.state.background.shutdown();
    }
}

/// The capability array (CXL 3.1, 8.2.8.1): its own header (id 0, version 1, count), then a header for each.
fn capability_array(capabilities: [(u16, u64, u64); 4]) -> Vec<u8> {
    let header = Layout::zeroed(0x10).u16(0x02, 1).u16(0x04, capabilities.len() as u16);
    let entry = |(id, start, length): (u16, u64, u64)| {
        Layout::zeroed(0x10).u16(0x00, id).u16(0x02, 1).u32(0x04, start as u32).u32(0x08, length as u32).into_bytes()
    };
    capabilities.into_iter().fold(header, |array, capability| array.then(&entry(capability))).into_bytes()
}
