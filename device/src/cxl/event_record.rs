//! Event records (CXL 3.1, 8.2.10.2.1): reports of the device about itself, laid out field by field as in the tables.
//!
//! By itself the device makes two of them, because a kernel decodes those by name and prints any other as bytes: General
//! Media where a DPA is concerned, Memory Module (which holds the health information) where the whole device is. The
//! others are for injection.

use uuid::{Uuid, uuid};

use super::{events::Log, layout::Layout};

const GENERAL_MEDIA: Uuid = uuid!("fbcd0a77-c260-417f-85a9-088b1621eba6");
const DRAM: Uuid = uuid!("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624");
const MEMORY_MODULE: Uuid = uuid!("fe927475-dd59-4339-a586-79bab113b774");

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
pub struct Record(Layout);

/// The common fields of an injected record, except for those that the log fills in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Common {
    /// Event record flags 7:2; the log sets the severity in bits 1:0.
    pub flags: u8,
    /// Maintenance operation class.
    pub maintenance_class: u8,
    /// Its subclass, where it is valid.
    pub maintenance_subclass: Option<u8>,
    /// Logical device, where it is valid.
    pub ld: Option<u16>,
    /// Head of a multi-headed device, where it is valid.
    pub head: Option<u8>,
}

/// Flags that mark the common fields that are valid.
const SUBCLASS_VALID: u32 = 1 << 6;
const LD_VALID: u32 = 1 << 7;
const HEAD_VALID: u32 = 1 << 8;

/// A component identifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Component {
    /// As the device's maker has it, or in PLDM format.
    pub id: [u8; 16],
    /// The identifier is in PLDM format.
    pub pldm: bool,
}

/// General Media Event Record (8.2.10.2.1.1). Fields of three bytes take the low 24 bits of a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeneralMedia {
    /// DPA 63:6, volatile (0), not repairable (1).
    pub dpa: u64,
    /// Memory event descriptor: uncorrectable (0), threshold (1), poison list overflow (2).
    pub descriptor: u8,
    /// Memory event type.
    pub event_type: u8,
    /// Transaction type.
    pub transaction: u8,
    /// Where it was, as far as that is known.
    pub channel: Option<u8>,
    /// Rank.
    pub rank: Option<u8>,
    /// Devices in the rank, 3 bytes.
    pub device: Option<u32>,
    /// Component.
    pub component: Option<Component>,
    /// Advanced programmable corrected memory error threshold flags.
    pub threshold_flags: u8,
    /// Corrected memory errors counted, 3 bytes.
    pub threshold_count: u32,
    /// Memory event sub-type.
    pub sub_type: u8,
}

/// DRAM Event Record (8.2.10.2.1.2). Fields of three bytes take the low 24 bits of a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dram {
    /// DPA 63:6, volatile (0), not repairable (1).
    pub dpa: u64,
    /// Memory event descriptor.
    pub descriptor: u8,
    /// Memory event type.
    pub event_type: u8,
    /// Transaction type.
    pub transaction: u8,
    /// Where it was, as far as that is known.
    pub channel: Option<u8>,
    /// Rank.
    pub rank: Option<u8>,
    /// Nibbles, 3 bytes.
    pub nibble_mask: Option<u32>,
    /// Bank group.
    pub bank_group: Option<u8>,
    /// Bank.
    pub bank: Option<u8>,
    /// Row, 3 bytes.
    pub row: Option<u32>,
    /// Column.
    pub column: Option<u16>,
    /// Bits within each nibble.
    pub correction_mask: Option<[u64; 4]>,
    /// Component.
    pub component: Option<Component>,
    /// Sub-channel.
    pub sub_channel: Option<u8>,
    /// Advanced programmable corrected memory error threshold flags.
    pub threshold_flags: u8,
    /// Corrected volatile memory errors counted, 3 bytes.
    pub threshold_count: u32,
    /// Memory event sub-type.
    pub sub_type: u8,
}

/// Health information, as it stands in Memory Module records and in the output of Get Health Info (8.2.10.9.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Maintenance needed (0), performance degraded (1), hardware replacement needed (2).
    pub status: u8,
    /// Media status; 0 is normal.
    pub media: u8,
    /// Additional status: life used (1:0), temperature (3:2), corrected volatile (4) and persistent (5) errors.
    pub additional: u8,
    /// Per cent.
    pub life_used: u8,
    /// Degrees Celsius.
    pub temperature: i16,
    /// Dirty shutdowns counted.
    pub dirty_shutdowns: u32,
    /// Corrected errors of volatile memory counted.
    pub corrected_volatile: u32,
    /// Corrected errors of persistent memory counted.
    pub corrected_persistent: u32,
}

impl Health {
    /// Bytes.
    const SIZE: usize = 0x12;

    pub(super) fn to_bytes(self) -> [u8; Self::SIZE] {
        Layout::zeroed(Self::SIZE)
            .u8(0x00, self.status)
            .u8(0x01, self.media)
            .u8(0x02, self.additional)
            .u8(0x03, self.life_used)
            .bytes(0x04, &self.temperature.to_le_bytes())
            .u32(0x06, self.dirty_shutdowns)
            .u32(0x0a, self.corrected_volatile)
            .u32(0x0e, self.corrected_persistent)
            .array()
    }
}

/// Memory Module Event Record (8.2.10.2.1.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryModule {
    /// Device event type.
    pub event_type: u8,
    /// The device's health at that time.
    pub health: Health,
    /// Component.
    pub component: Option<Component>,
    /// Device event sub-type.
    pub sub_type: u8,
}

impl Record {
    /// Bytes.
    pub const SIZE: usize = 128;
    /// Bytes of its own, after those that all have in common.
    pub const DATA: usize = 80;

    fn new(uuid: Uuid) -> Self {
        Self(Layout::zeroed(Self::SIZE).bytes(0x00, uuid.as_bytes()).u8(0x10, Self::SIZE as u8))
    }

    /// A record of any type.
    pub fn of(uuid: Uuid, data: &[u8; Self::DATA]) -> Self {
        Self(Self::new(uuid).0.bytes(Self::SIZE - Self::DATA, data))
    }

    /// Data at this DPA is lost.
    pub(super) fn lost(dpa: u64, transaction: Transaction) -> Self {
        Self::from(&GeneralMedia {
            dpa: (dpa & !0x3f) | DPA_VOLATILE,
            descriptor: UNCORRECTABLE_EVENT,
            event_type: DATA_PATH_ERROR,
            transaction: transaction as u8,
            ..GeneralMedia::default()
        })
    }

    /// The device's health has changed to this.
    pub(super) fn health_change(health: Health) -> Self {
        Self::from(&MemoryModule { event_type: HEALTH_STATUS_CHANGE, health, ..MemoryModule::default() })
    }

    /// The record with the common fields as they are injected.
    pub fn with_common(self, common: &Common) -> Self {
        let valid = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = u32::from(common.flags)
            | valid(common.maintenance_subclass.is_some(), SUBCLASS_VALID)
            | valid(common.ld.is_some(), LD_VALID)
            | valid(common.head.is_some(), HEAD_VALID);
        let layout = self.0.u24(0x11, flags).u8(0x20, common.maintenance_class);
        let layout = layout.u8(0x21, common.maintenance_subclass.unwrap_or(0));
        Self(layout.u16(0x22, common.ld.unwrap_or(0)).u8(0x24, common.head.unwrap_or(0)))
    }

    /// The record as it enters a log: severity (flags 1:0), handle and timestamp.
    pub(super) fn stamped(self, log: Log, handle: u16, timestamp: u64) -> Self {
        let severity = self.to_bytes()[0x11] & !3 | log as u8;
        Self(self.0.u8(0x11, severity).u16(0x14, handle).u64(0x18, timestamp))
    }

    /// Its bytes, as Get Event Records gives them.
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        self.0.array()
    }
}

/// Validity flags: a bit for each field that is there, in this order.
fn validity(fields: &[bool]) -> u16 {
    fields.iter().enumerate().fold(0, |flags, (bit, &valid)| flags | u16::from(valid) << bit)
}

impl From<&GeneralMedia> for Record {
    fn from(event: &GeneralMedia) -> Self {
        let component = event.component.unwrap_or_default();
        let valid = validity(&[
            event.channel.is_some(),
            event.rank.is_some(),
            event.device.is_some(),
            event.component.is_some(),
            component.pldm,
        ]);
        let layout = Self::new(GENERAL_MEDIA)
            .0
            .u64(0x30, event.dpa)
            .u8(0x38, event.descriptor)
            .u8(0x39, event.event_type)
            .u8(0x3a, event.transaction)
            .u16(0x3b, valid)
            .u8(0x3d, event.channel.unwrap_or(0))
            .u8(0x3e, event.rank.unwrap_or(0))
            .u24(0x3f, event.device.unwrap_or(0))
            .bytes(0x42, &component.id)
            .u8(0x52, event.threshold_flags)
            .u24(0x53, event.threshold_count)
            .u8(0x56, event.sub_type);
        Self(layout)
    }
}

impl From<&Dram> for Record {
    fn from(event: &Dram) -> Self {
        let component = event.component.unwrap_or_default();
        let valid = validity(&[
            event.channel.is_some(),
            event.rank.is_some(),
            event.nibble_mask.is_some(),
            event.bank_group.is_some(),
            event.bank.is_some(),
            event.row.is_some(),
            event.column.is_some(),
            event.correction_mask.is_some(),
            event.component.is_some(),
            component.pldm,
            event.sub_channel.is_some(),
        ]);
        let masks = event.correction_mask.unwrap_or_default().map(u64::to_le_bytes);
        let layout = Self::new(DRAM)
            .0
            .u64(0x30, event.dpa)
            .u8(0x38, event.descriptor)
            .u8(0x39, event.event_type)
            .u8(0x3a, event.transaction)
            .u16(0x3b, valid)
            .u8(0x3d, event.channel.unwrap_or(0))
            .u8(0x3e, event.rank.unwrap_or(0))
            .u24(0x3f, event.nibble_mask.unwrap_or(0))
            .u8(0x42, event.bank_group.unwrap_or(0))
            .u8(0x43, event.bank.unwrap_or(0))
            .u24(0x44, event.row.unwrap_or(0))
            .u16(0x47, event.column.unwrap_or(0))
            .bytes(0x49, masks.as_flattened())
            .bytes(0x69, &component.id)
            .u8(0x79, event.sub_channel.unwrap_or(0))
            .u8(0x7a, event.threshold_flags)
            .u24(0x7b, event.threshold_count)
            .u8(0x7e, event.sub_type);
        Self(layout)
    }
}

impl From<&MemoryModule> for Record {
    fn from(event: &MemoryModule) -> Self {
        let component = event.component.unwrap_or_default();
        let valid = validity(&[event.component.is_some(), component.pldm]);
        let layout = Self::new(MEMORY_MODULE)
            .0
            .u8(0x30, event.event_type)
            .bytes(0x31, &event.health.to_bytes())
            .u16(0x43, valid)
            .bytes(0x45, &component.id)
            .u8(0x55, event.sub_type);
        Self(layout)
    }
}
