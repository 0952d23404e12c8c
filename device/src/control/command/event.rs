//! Event records by hand.

use super::{CommandError, DeviceCommands, Execute, api};
use crate::cxl::event_record::{self, Component, Record};

impl Execute for api::InjectEvent {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let mut data = [0; Record::DATA];
        let Some(field) = data.get_mut(..self.data.len()) else {
            return Err(CommandError::generic(format!("data is at most {} bytes long", Record::DATA)));
        };
        field.copy_from_slice(&self.data);
        Ok(log(device, &self.common, Record::of(self.uuid, &data)))
    }
}

impl Execute for api::InjectGeneralMediaEvent {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let record = event_record::GeneralMedia {
            dpa: self.dpa,
            descriptor: self.descriptor,
            event_type: self.r#type,
            transaction: self.transaction_type,
            channel: self.channel,
            rank: self.rank,
            device: self.device.map(|mask| three_bytes("device", mask)).transpose()?,
            component: component(self.component)?,
            threshold_flags: self.cme_ev_flags,
            threshold_count: three_bytes("cme-count", self.cme_count)?,
            sub_type: self.sub_type,
        };
        Ok(log(device, &self.common, Record::from(&record)))
    }
}

impl Execute for api::InjectDramEvent {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let record = event_record::Dram {
            dpa: self.dpa,
            descriptor: self.descriptor,
            event_type: self.r#type,
            transaction: self.transaction_type,
            channel: self.channel,
            rank: self.rank,
            nibble_mask: self.nibble_mask.map(|mask| three_bytes("nibble-mask", mask)).transpose()?,
            bank_group: self.bank_group,
            bank: self.bank,
            row: self.row.map(|row| three_bytes("row", row)).transpose()?,
            column: self.column,
            correction_mask: self.correction_mask.map(|masks| correction_mask(&masks)).transpose()?,
            component: component(self.component)?,
            sub_channel: self.sub_channel,
            threshold_flags: self.cme_ev_flags,
            threshold_count: three_bytes("cvme-count", self.cvme_count)?,
            sub_type: self.sub_type,
        };
        Ok(log(device, &self.common, Record::from(&record)))
    }
}

impl Execute for api::InjectMemoryModuleEvent {
    const HAS_PATH: bool = true;

    fn execute(self, device: &DeviceCommands) -> Result<api::Done, CommandError> {
        let health = event_record::Health {
            status: self.health_status,
            media: self.media_status,
            additional: self.additional_status,
            life_used: self.life_used,
            temperature: self.temperature,
            dirty_shutdowns: self.dirty_shutdown_count,
            corrected_volatile: self.corrected_volatile_error_count,
            corrected_persistent: self.corrected_persistent_error_count,
        };
        let component = component(self.component)?;
        let record = event_record::MemoryModule { event_type: self.r#type, health, component, sub_type: self.sub_type };
        Ok(log(device, &self.common, Record::from(&record)))
    }
}

fn component(component: api::EventComponent) -> Result<Option<Component>, CommandError> {
    let Some(text) = component.component_id else { return Ok(None) };
    let mut id = [0; 16];
    let Some(field) = id.get_mut(..text.len()) else {
        return Err(CommandError::generic("a component-id is at most 16 bytes long"));
    };
    field.copy_from_slice(text.as_bytes());
    Ok(Some(Component { id, pldm: component.is_comp_id_pldm }))
}

fn log(device: &DeviceCommands, common: &api::EventCommon, record: Record) -> api::Done {
    let fields = event_record::Common {
        flags: common.flags,
        maintenance_class: common.maint_op_class,
        maintenance_subclass: common.maint_op_subclass,
        ld: common.ld_id,
        head: common.head_id,
    };
    device.inject_event(common.log, record.with_common(&fields));
    api::Done {}
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
