//! Event records by hand. The commands with `cxl-inject-` take the arguments of QEMU's, which are the fields of the
//! records in the specification.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Arguments, CommandError, DeviceCommands, nothing};
use crate::cxl::{
    event_record::{self, Component, Record},
    events::Log,
};

/// What all of them take.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Common {
    log: Log,
    #[serde(default)]
    flags: u8,
    #[serde(default)]
    maint_op_class: u8,
    maint_op_subclass: Option<u8>,
    ld_id: Option<u16>,
    head_id: Option<u8>,
}

const COMMON: [&str; 6] = ["log", "flags", "maint-op-class", "maint-op-subclass", "ld-id", "head-id"];

/// A component, of which both arguments may be missing.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ComponentId {
    component_id: Option<String>,
    #[serde(default)]
    is_comp_id_pldm: bool,
}

const COMPONENT: [&str; 2] = ["component-id", "is-comp-id-pldm"];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GeneralMedia {
    dpa: u64,
    descriptor: u8,
    r#type: u8,
    transaction_type: u8,
    channel: Option<u8>,
    rank: Option<u8>,
    device: Option<u32>,
    #[serde(default)]
    cme_ev_flags: u8,
    #[serde(default)]
    cme_count: u32,
    #[serde(default)]
    sub_type: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Dram {
    dpa: u64,
    descriptor: u8,
    r#type: u8,
    transaction_type: u8,
    channel: Option<u8>,
    rank: Option<u8>,
    nibble_mask: Option<u32>,
    bank_group: Option<u8>,
    bank: Option<u8>,
    row: Option<u32>,
    column: Option<u16>,
    correction_mask: Option<Vec<u64>>,
    sub_channel: Option<u8>,
    #[serde(default)]
    cme_ev_flags: u8,
    #[serde(default)]
    cvme_count: u32,
    #[serde(default)]
    sub_type: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MemoryModule {
    r#type: u8,
    health_status: u8,
    media_status: u8,
    additional_status: u8,
    life_used: u8,
    temperature: i16,
    dirty_shutdown_count: u32,
    corrected_volatile_error_count: u32,
    corrected_persistent_error_count: u32,
    #[serde(default)]
    sub_type: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Any {
    uuid: String,
    data: String,
}

/// `uuid`, `data` (at most 80 bytes, in hex): a record of any type.
pub(super) fn inject(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let common = common(arguments)?;
    let Any { uuid, data } = std::mem::take(arguments).into()?;
    let uuid = Uuid::parse_str(&uuid).map_err(|why| CommandError::generic(format!("this is no UUID: {why}")))?;
    let record = Record::of(uuid, &hex(&data)?);
    Ok(log(device, &common, record))
}

/// A General Media event.
pub(super) fn general_media(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let common = common(arguments)?;
    let component = component(arguments)?;
    let event: GeneralMedia = std::mem::take(arguments).into()?;
    let record = event_record::GeneralMedia {
        dpa: event.dpa,
        descriptor: event.descriptor,
        event_type: event.r#type,
        transaction: event.transaction_type,
        channel: event.channel,
        rank: event.rank,
        device: event.device.map(|mask| three_bytes("device", mask)).transpose()?,
        component,
        threshold_flags: event.cme_ev_flags,
        threshold_count: three_bytes("cme-count", event.cme_count)?,
        sub_type: event.sub_type,
    };
    Ok(log(device, &common, Record::from(&record)))
}

/// A DRAM event.
pub(super) fn dram(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let common = common(arguments)?;
    let component = component(arguments)?;
    let event: Dram = std::mem::take(arguments).into()?;
    let record = event_record::Dram {
        dpa: event.dpa,
        descriptor: event.descriptor,
        event_type: event.r#type,
        transaction: event.transaction_type,
        channel: event.channel,
        rank: event.rank,
        nibble_mask: event.nibble_mask.map(|mask| three_bytes("nibble-mask", mask)).transpose()?,
        bank_group: event.bank_group,
        bank: event.bank,
        row: event.row.map(|row| three_bytes("row", row)).transpose()?,
        column: event.column,
        correction_mask: event.correction_mask.map(|masks| correction_mask(&masks)).transpose()?,
        component,
        sub_channel: event.sub_channel,
        threshold_flags: event.cme_ev_flags,
        threshold_count: three_bytes("cvme-count", event.cvme_count)?,
        sub_type: event.sub_type,
    };
    Ok(log(device, &common, Record::from(&record)))
}

/// A Memory Module event.
pub(super) fn memory_module(device: &DeviceCommands, arguments: &mut Arguments) -> Result<Value, CommandError> {
    let common = common(arguments)?;
    let component = component(arguments)?;
    let event: MemoryModule = std::mem::take(arguments).into()?;
    let health = event_record::Health {
        status: event.health_status,
        media: event.media_status,
        additional: event.additional_status,
        life_used: event.life_used,
        temperature: event.temperature,
        dirty_shutdowns: event.dirty_shutdown_count,
        corrected_volatile: event.corrected_volatile_error_count,
        corrected_persistent: event.corrected_persistent_error_count,
    };
    let record = event_record::MemoryModule { event_type: event.r#type, health, component, sub_type: event.sub_type };
    Ok(log(device, &common, Record::from(&record)))
}

/// Takes what all commands have. `path` is taken and ignored: it is in QEMU's commands.
fn common(arguments: &mut Arguments) -> Result<Common, CommandError> {
    arguments.take("path");
    arguments.split(&COMMON).into()
}

fn component(arguments: &mut Arguments) -> Result<Option<Component>, CommandError> {
    let ComponentId { component_id, is_comp_id_pldm: pldm } = arguments.split(&COMPONENT).into()?;
    let Some(text) = component_id else { return Ok(None) };
    let mut id = [0; 16];
    let Some(field) = id.get_mut(..text.len()) else {
        return Err(CommandError::generic("a component-id is at most 16 bytes long"));
    };
    field.copy_from_slice(text.as_bytes());
    Ok(Some(Component { id, pldm }))
}

fn log(device: &DeviceCommands, common: &Common, record: Record) -> Value {
    let fields = event_record::Common {
        flags: common.flags,
        maintenance_class: common.maint_op_class,
        maintenance_subclass: common.maint_op_subclass,
        ld: common.ld_id,
        head: common.head_id,
    };
    device.injector.inject_event(common.log, record.with_common(&fields));
    nothing()
}

fn three_bytes(name: &str, value: u32) -> Result<u32, CommandError> {
    if value < 1 << 24 {
        return Ok(value);
    }
    Err(CommandError::generic(format!("{name:?} is a field of three bytes: at most {}", (1 << 24) - 1)))
}

/// A mask for each of up to four nibbles.
fn correction_mask(masks: &[u64]) -> Result<[u64; 4], CommandError> {
    let mut all = [0; 4];
    let Some(given) = all.get_mut(..masks.len()) else {
        return Err(CommandError::generic("a correction-mask has at most four elements"));
    };
    given.copy_from_slice(masks);
    Ok(all)
}

/// Bytes written in hex, from the start of a record's own part.
fn hex(text: &str) -> Result<[u8; Record::DATA], CommandError> {
    let mut data = [0; Record::DATA];
    let wrong = || CommandError::generic(format!("data is at most {} bytes, each as two hex digits", Record::DATA));
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(wrong()) };
    let bytes = data.get_mut(..pairs.len()).ok_or_else(wrong)?;
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |letter: u8| char::from(letter).to_digit(16).map(|digit| digit as u8).ok_or_else(wrong);
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Ok(data)
}
