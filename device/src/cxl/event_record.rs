//! Event records (CXL 3.1, 8.2.10.2.1): what the device says about itself.
//!
//! Two standard records carry everything, because a kernel decodes those by name and prints any other as bytes:
//! General Media where a DPA is concerned, Memory Module (which holds the health information) where the whole device is.

use super::{events::Log, layout::Layout, mailbox::health::HealthInfo};

/// UUIDs in the byte order of the records.
const GENERAL_MEDIA: [u8; 16] = uuid::uuid!("fbcd0a77-c260-417f-85a9-088b1621eba6").into_bytes();
const MEMORY_MODULE: [u8; 16] = uuid::uuid!("fe927475-dd59-4339-a586-79bab113b774").into_bytes();

/// Physical address flags, bits 1:0 of the DPA field.
const DPA_VOLATILE: u64 = 1 << 0;
/// Memory event descriptor.
const UNCORRECTABLE_EVENT: u8 = 1 << 0;
/// Memory event type: the data did not reach the media.
const DATA_PATH_ERROR: u8 = 2;
/// Device event type.
const HEALTH_STATUS_CHANGE: u8 = 0;

/// What led to a General Media event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    /// Host Inject Poison.
    HostInjectPoison = 4,
    /// Internal Media Management: the device wrote back, compressed or moved a block.
    InternalMediaManagement = 6,
}

/// A record: the 48 bytes all have in common, and 80 of its own.
#[derive(Clone, Debug)]
pub(super) struct Record(Layout);

impl Record {
    /// Bytes.
    pub(super) const SIZE: usize = 128;

    fn new(uuid: [u8; 16]) -> Self {
        Self(Layout::zeroed(Self::SIZE).bytes(0x00, &uuid).u8(0x10, Self::SIZE as u8))
    }

    /// Data at this DPA is lost.
    pub(super) fn general_media(dpa: u64, transaction: Transaction) -> Self {
        Self(
            Self::new(GENERAL_MEDIA)
                .0
                .u64(0x30, (dpa & !0x3f) | DPA_VOLATILE)
                .u8(0x38, UNCORRECTABLE_EVENT)
                .u8(0x39, DATA_PATH_ERROR)
                .u8(0x3a, transaction as u8),
        )
    }

    /// The device's health has changed to this.
    pub(super) fn health_change(health: &HealthInfo) -> Self {
        Self(Self::new(MEMORY_MODULE).0.u8(0x30, HEALTH_STATUS_CHANGE).bytes(0x31, &health.to_bytes()))
    }

    /// The record as it enters a log: flags (severity 1:0), handle and timestamp.
    pub(super) fn stamped(self, log: Log, handle: u16, timestamp: u64) -> Self {
        Self(self.0.u24(0x11, log as u32).u16(0x14, handle).u64(0x18, timestamp))
    }

    pub(super) fn to_bytes(&self) -> [u8; Self::SIZE] {
        self.0.array()
    }
}
