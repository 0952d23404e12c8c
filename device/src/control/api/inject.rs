//! Injection: what the device is made to report, to fail or to do late, although nothing happened to the medium.
//!
//! The arguments of the `cxl-inject-` commands are those of QEMU's commands of these names, which are the fields of the
//! records in CXL 3.1, 8.2.10.2.1. An optional field that is left out is marked not valid in the record.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Done, command};
use crate::cxl::{
    delay::Phase,
    events::Log,
    ras::{Correctable, Uncorrectable},
};

/// Signals the low crossing to the guest. The medium is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectLowWatermark {}
command!(InjectLowWatermark, "inject-low-watermark" => Done);

/// Signals the high crossing to the guest. The medium is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectHighWatermark {}
command!(InjectHighWatermark, "inject-high-watermark" => Done);

/// The arguments of every command that injects an event record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventCommon {
    /// The log that gets the record.
    pub log: Log,
    /// Event record flags 7:2.
    #[serde(default)]
    pub flags: u8,
    /// Maintenance operation class.
    #[serde(default)]
    pub maint_op_class: u8,
    /// Its subclass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maint_op_subclass: Option<u8>,
    /// Logical device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ld_id: Option<u16>,
    /// Head of a multi-headed device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_id: Option<u8>,
}

impl EventCommon {
    /// A record for this log with nothing else.
    pub fn of(log: Log) -> Self {
        Self { log, flags: 0, maint_op_class: 0, maint_op_subclass: None, ld_id: None, head_id: None }
    }
}

/// A component of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventComponent {
    /// Its identifier, at most 16 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_id: Option<String>,
    /// The identifier is in PLDM format.
    #[serde(default)]
    pub is_comp_id_pldm: bool,
}

/// Injects a record of any type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InjectEvent {
    /// The fields that all records have.
    #[serde(flatten)]
    pub common: EventCommon,
    /// The record's type.
    pub uuid: Uuid,
    /// The record's own part: at most 80 bytes, in hex on the wire, followed by zeros.
    #[serde(with = "hex::serde")]
    pub data: Vec<u8>,
}
command!(InjectEvent, "inject-event" => Done);

/// Injects a General Media Event Record (8.2.10.2.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the record's fields")]
pub struct InjectGeneralMediaEvent {
    #[serde(flatten)]
    pub common: EventCommon,
    #[serde(flatten)]
    pub component: EventComponent,
    pub dpa: u64,
    pub descriptor: u8,
    pub r#type: u8,
    pub transaction_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    #[serde(default)]
    pub cme_ev_flags: u8,
    #[serde(default)]
    pub cme_count: u32,
    #[serde(default)]
    pub sub_type: u8,
}
command!(InjectGeneralMediaEvent, "cxl-inject-general-media-event" => Done);

/// Injects a DRAM Event Record (8.2.10.2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the record's fields")]
pub struct InjectDramEvent {
    #[serde(flatten)]
    pub common: EventCommon,
    #[serde(flatten)]
    pub component: EventComponent,
    pub dpa: u64,
    pub descriptor: u8,
    pub r#type: u8,
    pub transaction_type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nibble_mask: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_group: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u16>,
    /// A mask for each of up to four nibbles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correction_mask: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_channel: Option<u8>,
    #[serde(default)]
    pub cme_ev_flags: u8,
    #[serde(default)]
    pub cvme_count: u32,
    #[serde(default)]
    pub sub_type: u8,
}
command!(InjectDramEvent, "cxl-inject-dram-event" => Done);

/// Injects a Memory Module Event Record (8.2.10.2.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the record's fields")]
pub struct InjectMemoryModuleEvent {
    #[serde(flatten)]
    pub common: EventCommon,
    #[serde(flatten)]
    pub component: EventComponent,
    pub r#type: u8,
    pub health_status: u8,
    pub media_status: u8,
    pub additional_status: u8,
    pub life_used: u8,
    pub temperature: i16,
    pub dirty_shutdown_count: u32,
    pub corrected_volatile_error_count: u32,
    pub corrected_persistent_error_count: u32,
    #[serde(default)]
    pub sub_type: u8,
}
command!(InjectMemoryModuleEvent, "cxl-inject-memory-module-event" => Done);

/// Sets status bits of uncorrectable errors in the RAS structure. Raises no interrupt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectUncorrectableErrors {
    /// The errors. The header of the first is kept until the host clears the status.
    pub errors: Vec<UncorrectableError>,
}
command!(InjectUncorrectableErrors, "cxl-inject-uncorrectable-errors" => Done);

/// An uncorrectable error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UncorrectableError {
    /// Which status bit.
    pub r#type: Uncorrectable,
    /// The header log: at most 16 dwords, followed by zeros.
    pub header: Vec<u32>,
}

/// Sets the status bit of a correctable error in the RAS structure. Raises no interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectCorrectableError {
    /// Which status bit.
    pub r#type: Correctable,
}
command!(InjectCorrectableError, "cxl-inject-correctable-error" => Done);

/// Makes the next mailbox commands with an opcode fail, in place of any earlier request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FailCommand {
    /// Command set and command.
    pub opcode: u16,
    /// The return code (CXL 3.1, table 8-34), from 2 up.
    pub return_code: u16,
    /// How many commands fail. 0 ends an earlier request.
    #[serde(default = "one")]
    pub count: u64,
    /// The commands are accepted, and the background operation that each starts fails.
    #[serde(default)]
    pub background: bool,
}
command!(FailCommand, "fail-command" => Pending);

fn one() -> u64 {
    1
}

/// Makes the next mailbox commands with an opcode late, in place of any earlier request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayCommand {
    /// Command set and command.
    pub opcode: u16,
    /// How late, from 1 to 600000.
    pub milliseconds: u64,
    /// What is late: the background operation, or the command itself.
    pub phase: Phase,
    /// How many commands are late. 0 ends an earlier request; what is late already stays so.
    #[serde(default = "one")]
    pub count: u64,
}
command!(DelayCommand, "delay-command" => Pending);

/// Loses the next interrupts of a vector, in place of any earlier request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoseInterrupt {
    /// MSI-X vector, from 0 to 15.
    pub vector: u16,
    /// How many are lost. 0 ends an earlier request.
    #[serde(default = "one")]
    pub count: u64,
}
command!(LoseInterrupt, "lose-interrupt" => Pending);

/// What was left of an earlier request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pending {
    /// Commands that were still to fail or to be late, or interrupts that were still to be lost.
    pub left_before: u64,
}
