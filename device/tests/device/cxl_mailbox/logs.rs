//! Logs, and what follows from them: the Command Effects Log is the truth about every one of 65536 opcodes.

use std::collections::BTreeMap;

use super::driver::{
    Device, INVALID_INPUT, INVALID_LOG, INVALID_PAYLOAD_LENGTH, SUCCESS, UNSUPPORTED, u16_at, u32_at, wait_until,
};

const CEL: [u8; 16] = [0x0d, 0xa9, 0xc0, 0xb5, 0xbf, 0x41, 0x4b, 0x78, 0x8f, 0x79, 0x96, 0xb1, 0x62, 0x3b, 0x3f, 0x17];
const COMPONENT_STATE_DUMP: [u8; 16] =
    [0xb3, 0xfa, 0xb4, 0xcf, 0x01, 0xb6, 0x43, 0x32, 0x94, 0x3e, 0x5e, 0x99, 0x62, 0xf2, 0x35, 0x67];

/// Command effects: background operation, and one that can be aborted.
const BACKGROUND: u16 = 1 << 6;
const ABORTABLE: u16 = 1 << 8;

/// Every log the device has: UUID and size.
fn supported(device: &Device) -> Vec<([u8; 16], u32)> {
    let output = device.output(0x0400, &[]);
    let (entries, rest) = output[8..].as_chunks::<20>();
    assert_eq!((entries.len(), rest.len()), (usize::from(u16_at(&output, 0)), 0));
    entries.iter().map(|entry| (entry[..16].try_into().unwrap(), u32_at(entry, 16))).collect()
}

fn get_log(uuid: &[u8; 16], offset: u32, length: u32) -> Vec<u8> {
    [&uuid[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// The Command Effects Log: opcode and effects.
pub(crate) fn effects(device: &Device) -> BTreeMap<u16, u16> {
    let size = supported(device).into_iter().find(|(uuid, _)| *uuid == CEL).unwrap().1;
    let log = device.output(0x0401, &get_log(&CEL, 0, size));
    log.as_chunks::<4>().0.iter().map(|entry| (u16_at(entry, 0), u16_at(entry, 2))).collect()
}

#[test]
fn what_the_effects_log_lists_is_what_is_not_unsupported() {
    let device = Device::new();
    let listed = effects(&device);
    // Payloads of every length are wrong for some commands, but unsupported for no listed one. A scan's results are:
    // until a scan has ended there are none.
    for opcode in 0..=u16::MAX {
        let code = device.code(opcode, &[]);
        wait_until(|| !device.background_runs());
        if opcode != 0x4305 {
            assert_eq!(code == UNSUPPORTED, !listed.contains_key(&opcode), "{opcode:#06x} gives {code:#04x}");
        }
    }
    assert!(listed.contains_key(&0x4305));
}

#[test]
fn the_effects_log_lists_which_commands_continue_in_the_background() {
    let listed = effects(&Device::new());
    let with = |bits| listed.iter().filter(move |(_, effects)| **effects & bits == bits).map(|(opcode, _)| *opcode);
    assert_eq!(with(BACKGROUND).collect::<Vec<_>>(), [0x4304, 0x4400, 0x4402]);
    assert_eq!(with(BACKGROUND | ABORTABLE).collect::<Vec<_>>(), [0x4304, 0x4402]);
}

#[test]
fn a_payload_too_short_or_too_long_is_an_invalid_payload_length() {
    let lengths: [(u16, usize); 28] = [
        (0x0005, 0),
        (0x0100, 1),
        (0x0101, 6),
        (0x0102, 0),
        (0x0200, 0),
        (0x0202, 2),
        (0x0300, 0),
        (0x0301, 8),
        (0x0400, 0),
        (0x0401, 24),
        (0x4000, 0),
        (0x4100, 0),
        (0x4102, 8),
        (0x4200, 0),
        (0x4201, 0),
        (0x4202, 12),
        (0x4300, 16),
        (0x4301, 8),
        (0x4302, 72),
        (0x4303, 16),
        (0x4304, 17),
        (0x4305, 0),
        (0x4400, 0),
        (0x4402, 12),
        (0x4500, 0),
        (0xc000, 0),
        (0xc001, 16),
        // Four logs, or five with dynamic capacity.
        (0x0103, 4),
    ];
    let device = Device::new();
    for (opcode, length) in lengths {
        let too_long = if opcode == 0x0103 { length + 2 } else { length + 1 };
        for wrong in (0..length).chain([too_long, 2047, 2048]) {
            assert_eq!(
                device.code(opcode, &vec![0; wrong]),
                INVALID_PAYLOAD_LENGTH,
                "{opcode:#06x} with {wrong} bytes instead of {length}"
            );
        }
    }
    // Set LSA and Transfer FW take any length that holds their header.
    for (opcode, header) in [(0x4103, 8), (0x0201, 0x80)] {
        assert!((0..header).all(|length| device.code(opcode, &vec![0; length]) == INVALID_PAYLOAD_LENGTH));
    }
    let mut covered: Vec<_> = lengths.iter().map(|(opcode, _)| *opcode).chain([0x4103, 0x0201]).collect();
    covered.sort_unstable();
    assert_eq!(covered, effects(&device).into_keys().collect::<Vec<_>>(), "no command is left out");
}

#[test]
fn a_length_beyond_the_payload_registers_is_an_invalid_payload_length() {
    use super::driver::{COMMAND, CONTROL, DOORBELL, PRIMARY_MAILBOX, STATUS};
    let device = Device::new();
    let mailbox = device.capability(PRIMARY_MAILBOX);
    for length in [2049_u64, 0x1f_ffff] {
        device.write64(mailbox + COMMAND, 0x4000 | length << 16);
        device.write32(mailbox + CONTROL, DOORBELL);
        assert_eq!(device.read64(mailbox + STATUS) >> 32, u64::from(INVALID_PAYLOAD_LENGTH));
        assert_eq!(device.read64(mailbox + COMMAND) >> 16, 0, "no output");
    }
}

#[test]
fn a_log_is_read_in_any_parts_and_not_beyond_its_end() {
    let device = Device::new();
    for (uuid, size) in supported(&device) {
        let mut pieces = Vec::new();
        while (pieces.len() as u32) < size {
            let offset = pieces.len() as u32;
            pieces.extend(device.output(0x0401, &get_log(&uuid, offset, 1000.min(size - offset))));
        }
        // The dump carries a clock, which stands at 0 here.
        let start = device.output(0x0401, &get_log(&uuid, 0, size.min(2048)));
        assert_eq!(pieces[..start.len()], start);
        assert_eq!(device.run(0x0401, &get_log(&uuid, size, 0)), (SUCCESS, vec![]));
        for (offset, length) in [(size, 1), (0, size + 1), (1, size), (u32::MAX, u32::MAX), (u32::MAX, 1), (0, 2049)] {
            assert_eq!(device.code(0x0401, &get_log(&uuid, offset, length)), INVALID_INPUT, "{offset}+{length}");
        }
    }
}

#[test]
fn an_unknown_log_is_an_invalid_log() {
    assert_eq!(Device::new().code(0x0401, &get_log(&[0x11; 16], 0, 0)), INVALID_LOG);
}

#[test]
fn the_component_state_dump_holds_the_hdm_decoders_as_they_read() {
    let device = Device::new();
    let size = supported(&device).into_iter().find(|(uuid, _)| *uuid == COMPONENT_STATE_DUMP).unwrap().1;
    let start = device.output(0x0401, &get_log(&COMPONENT_STATE_DUMP, 0, 0x40 + 4));
    assert_eq!(u32_at(&start, 0), size - 0x40);
    let structures = u64::from(device.read32(0x1000) >> 24);
    let mut headers = (1..=structures).map(|n| device.read32(0x1000 + 4 * n));
    let decoders = 0x1000 + u64::from(headers.find(|header| header & 0xffff == 5).unwrap() >> 20);
    assert_eq!(u32_at(&start, 0x40), device.read32(decoders));
}
