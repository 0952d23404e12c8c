//! Logs (CXL 3.1, 8.2.10.5): the Command Effects Log and the Component State Dump.

use std::sync::Arc;

use super::{Answer, COMMANDS, Outcome, expect_length, return_code::ReturnCode};
use crate::cxl::{
    device_state::DeviceState,
    layout::{Layout, field},
};

/// A log that can be read.
struct SupportedLog {
    /// In the byte order of the payloads.
    uuid: [u8; 16],
    read: fn(&DeviceState) -> Vec<u8>,
}

const LOGS: [SupportedLog; 2] = [
    SupportedLog {
        uuid: uuid::uuid!("0da9c0b5-bf41-4b78-8f79-96b1623b3f17").into_bytes(),
        read: |_| command_effects(),
    },
    SupportedLog { uuid: uuid::uuid!("b3fab4cf-01b6-4332-943e-5e9962f23567").into_bytes(), read: component_state_dump },
];

/// What the Component State Dump's data is: the HDM decoder structure of the component registers, as it reads.
const DUMP_FORMAT: [u8; 16] = uuid::uuid!("5a6d8c1e-3f0b-4d52-9d0e-61c7a4f2b9d8").into_bytes();
/// Bytes before the data of the Component State Dump.
const DUMP_HEADER: usize = 0x40;

/// An entry for each command: opcode, effects.
fn command_effects() -> Vec<u8> {
    let entry = |opcode: u16, effects: u16| [opcode.to_le_bytes(), effects.to_le_bytes()].concat();
    COMMANDS.iter().flat_map(|command| entry(command.opcode, command.effects)).collect()
}

/// Length of the data, no trigger, timestamp, format, then the data.
fn component_state_dump(device: &DeviceState) -> Vec<u8> {
    let data = device.component.component_state();
    Layout::zeroed(DUMP_HEADER)
        .u32(0x00, data.len() as u32)
        .u64(0x08, device.timestamp.now())
        .bytes(0x10, &DUMP_FORMAT)
        .then(&data)
        .into_bytes()
}

/// 0400h Get Supported Logs. No input. Output: count (2), reserved (6), then UUID (16) and size (4) of each.
pub(super) fn get_supported_logs(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 0)?;
    let header = Layout::zeroed(8).u16(0x00, LOGS.len() as u16);
    let output = LOGS
        .iter()
        .fold(header, |output, log| output.then(&log.uuid).then(&((log.read)(device).len() as u32).to_le_bytes()));
    Ok(Answer::Done(output.into_bytes()))
}

/// 0401h Get Log. Input: UUID (16), offset (4), length (4). Output: the bytes.
///
/// A range that is not inside the log, or longer than the payload, is Invalid Input.
pub(super) fn get_log(device: &Arc<DeviceState>, input: &[u8]) -> Outcome {
    expect_length(input, 24)?;
    let log = LOGS.iter().find(|log| input.starts_with(&log.uuid)).ok_or(ReturnCode::InvalidLog)?;
    let number = |at| field(input, at).map(u32::from_le_bytes).map(|number| number as usize);
    let (offset, length) = number(16).zip(number(20)).ok_or(ReturnCode::InvalidPayloadLength)?;
    if length > device.payload_size.bytes() {
        return Err(ReturnCode::InvalidInput);
    }
    let contents = (log.read)(device);
    // Both are below 2^32.
    let part = contents.get(offset..offset + length).ok_or(ReturnCode::InvalidInput)?;
    Ok(Answer::Done(part.to_vec()))
}
