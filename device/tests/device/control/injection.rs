//! Event records by hand: every argument lands in the field that the specification has for it.

use std::time::Duration;

use cxl_cram_device::cxl::{
    delay::{CommandDelay, Phase},
    events::Log,
    failure::CommandFailure,
    ras::{Correctable, Uncorrectable},
};
use serde_json::{Value, json};

use super::peer::*;

/// The one record that a command makes.
fn record(name: &str, arguments: Value) -> (Log, [u8; 128]) {
    let rig = Rig::start();
    assert_eq!(rig.client().execute(name, arguments), json!({}));
    let events = rig.injected.events();
    assert_eq!(events.len(), 1);
    events[0]
}

fn refused(name: &str, arguments: Value) -> String {
    let rig = Rig::start();
    let (class, why) = rig.client().refused(json!({"execute": name, "arguments": arguments}));
    assert_eq!(class, "GenericError", "{why}");
    assert!(rig.injected.events().is_empty());
    why
}

fn with(mut arguments: Value, more: Value) -> Value {
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    arguments
}

fn general_media() -> Value {
    json!({"path": "/machine/peripheral/cxl-mem0", "log": "failure", "flags": 4, "dpa": 0x1000_0041, "descriptor": 3,
        "type": 2, "transaction-type": 6})
}

fn dram() -> Value {
    json!({"log": "warning", "flags": 0, "dpa": 0x40, "descriptor": 1, "type": 1, "transaction-type": 2})
}

fn memory_module() -> Value {
    json!({"log": "fatal", "flags": 1 << 5, "type": 3, "health-status": 5, "media-status": 2, "additional-status": 0x15,
        "life-used": 99, "temperature": -20, "dirty-shutdown-count": 0x0102_0304,
        "corrected-volatile-error-count": 0x0506_0708, "corrected-persistent-error-count": 0x090a_0b0c})
}

#[test]
fn a_general_media_event_has_its_fields_and_their_valid_flags() {
    let (log, bytes) = record("cxl-inject-general-media-event", general_media());
    assert_eq!(log, Log::Failure);
    assert_eq!(bytes[..4], [0xfb, 0xcd, 0x0a, 0x77]);
    assert_eq!(bytes[0x10..0x14], [128, 4, 0, 0]);
    assert_eq!(bytes[0x30..0x3d], [0x41, 0, 0, 0x10, 0, 0, 0, 0, 3, 2, 6, 0, 0]);
    assert_eq!(bytes[0x3d..], [0; 0x43]);

    let more = json!({"channel": 1, "rank": 2, "device": 0x30405, "component-id": "dimm", "is-comp-id-pldm": true,
        "cme-ev-flags": 7, "cme-count": 0x80901, "sub-type": 3});
    let (_, bytes) = record("cxl-inject-general-media-event", with(general_media(), more));
    assert_eq!(bytes[0x3b..0x42], [0x1f, 0, 1, 2, 5, 4, 3]);
    assert_eq!(bytes[0x42..0x52], *b"dimm\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[0x52..0x57], [7, 1, 9, 8, 3]);
}

#[test]
fn a_dram_event_has_its_fields_and_their_valid_flags() {
    let (log, bytes) = record("cxl-inject-dram-event", dram());
    assert_eq!(log, Log::Warning);
    assert_eq!(bytes[..4], [0x60, 0x1d, 0xcb, 0xb3]);
    assert_eq!(bytes[0x38..0x3d], [1, 1, 2, 0, 0]);

    let more = json!({"channel": 1, "rank": 2, "nibble-mask": 3, "bank-group": 4, "bank": 5, "row": 0x60708,
        "column": 0x90a, "correction-mask": [11, 12], "component-id": "0123456789abcdef", "sub-channel": 13,
        "cme-ev-flags": 14, "cvme-count": 15, "sub-type": 16});
    let (_, bytes) = record("cxl-inject-dram-event", with(dram(), more));
    assert_eq!(bytes[0x3b..0x49], [0xff, 0x05, 1, 2, 3, 0, 0, 4, 5, 8, 7, 6, 0x0a, 9]);
    let masks: Vec<u8> = [11_u64, 12, 0, 0].iter().flat_map(|mask| mask.to_le_bytes()).collect();
    assert_eq!(bytes[0x49..0x69], masks);
    assert_eq!(bytes[0x69..0x79], *b"0123456789abcdef");
    assert_eq!(bytes[0x79..], [13, 14, 15, 0, 0, 16, 0]);
}

#[test]
fn a_memory_module_event_has_the_health_it_was_given() {
    let more = json!({"component-id": "fan", "sub-type": 9});
    let (log, bytes) = record("cxl-inject-memory-module-event", with(memory_module(), more));
    assert_eq!(log, Log::Fatal);
    assert_eq!(bytes[..4], [0xfe, 0x92, 0x74, 0x75]);
    assert_eq!(bytes[0x11], 1 << 5);
    let health = [5, 2, 0x15, 99, 0xec, 0xff, 4, 3, 2, 1, 8, 7, 6, 5, 0x0c, 0x0b, 0x0a, 9];
    assert_eq!(bytes[0x30..0x43], [&[3], &health[..]].concat());
    assert_eq!(bytes[0x43..0x56], *b"\x01\0fan\0\0\0\0\0\0\0\0\0\0\0\0\0\x09");
}

#[test]
fn what_all_records_have_in_common_is_there_with_its_valid_flags() {
    let more = json!({"maint-op-class": 1, "maint-op-subclass": 2, "ld-id": 0x304, "head-id": 5});
    let (_, bytes) = record("cxl-inject-dram-event", with(dram(), more));
    assert_eq!(bytes[0x11..0x14], [0xc0, 0x01, 0]);
    assert_eq!(bytes[0x20..0x25], [1, 2, 4, 3, 5]);
}

#[test]
fn a_record_of_any_type_carries_the_bytes_it_is_given() {
    let uuid = "5e1f0000-0000-4000-8000-000000000001";
    let (log, bytes) = record("inject-event", json!({"log": "informational", "uuid": uuid, "data": "00ffA5"}));
    assert_eq!(log, Log::Information);
    assert_eq!(bytes[..3], [0x5e, 0x1f, 0]);
    assert_eq!(bytes[0x30..0x34], [0, 0xff, 0xa5, 0]);
    let full = json!({"log": "fatal", "uuid": uuid, "data": "11".repeat(80)});
    assert_eq!(record("inject-event", full).1[0x30..], [0x11; 80]);
    for data in ["1", "xy", "é", &"00".repeat(81)] {
        refused("inject-event", json!({"log": "fatal", "uuid": uuid, "data": data}));
    }
    refused("inject-event", json!({"log": "fatal", "uuid": "5e1f", "data": ""}));
}

#[test]
fn arguments_that_have_no_place_in_the_record_are_refused() {
    for more in [
        json!({"log": "debug"}),
        json!({"flags": 256}),
        json!({"dpa": -1}),
        json!({"device": 1 << 24}),
        json!({"cme-count": 1 << 24}),
        json!({"component-id": "0123456789abcdefg"}),
        json!({"nibble-mask": 1}),
    ] {
        refused("cxl-inject-general-media-event", with(general_media(), more));
    }
    for more in [json!({"row": 1 << 24}), json!({"correction-mask": [1, 2, 3, 4, 5]}), json!({"column": 65536})] {
        refused("cxl-inject-dram-event", with(dram(), more));
    }
    assert!(refused("cxl-inject-memory-module-event", json!({"log": "fatal"})).contains("type"));
    refused("cxl-inject-memory-module-event", with(memory_module(), json!({"temperature": 40000})));
}

#[test]
fn protocol_errors_are_named_and_have_a_header() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let errors = json!([{"type": "mem-data-ecc", "header": [1, 2]}, {"type": "cxl-ide-rx", "header": []}]);
    peer.execute("cxl-inject-uncorrectable-errors", json!({"path": "x", "errors": errors}));
    peer.execute("cxl-inject-correctable-error", json!({"path": "x", "type": "physical"}));
    let injected = rig.injected.uncorrectable.lock().clone();
    assert_eq!(
        injected.iter().map(|(error, _)| *error).collect::<Vec<_>>(),
        [Uncorrectable::MemDataEcc, Uncorrectable::CxlIdeRx]
    );
    assert_eq!((injected[0].1[..3].to_vec(), injected[1].1), (vec![1, 2, 0], [0; 16]));
    assert_eq!(*rig.injected.correctable.lock(), [Correctable::Physical]);
    refused("cxl-inject-correctable-error", json!({"type": "mem-data-parity"}));
    refused("cxl-inject-uncorrectable-errors", json!({"errors": [{"type": "internal", "header": vec![0; 17]}]}));
}

#[test]
fn fail_command_fills_in_the_arguments_that_are_left_out() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let told = [
        json!({"opcode": 0x4402, "return-code": 4}),
        json!({"opcode": 0x4402, "return-code": 17, "count": 3, "background": true}),
    ];
    for (before, arguments) in told.into_iter().enumerate() {
        assert_eq!(peer.execute("fail-command", arguments), json!({"left-before": before}));
    }
    assert_eq!(
        *rig.injected.failures.lock(),
        [
            CommandFailure { opcode: 0x4402, return_code: 4, count: 1, background: false },
            CommandFailure { opcode: 0x4402, return_code: 17, count: 3, background: true },
        ]
    );
    for arguments in [
        json!({"opcode": 0x4402}),
        json!({"opcode": 65536, "return-code": 4}),
        json!({"opcode": 0x4402, "return-code": -1}),
        json!({"opcode": 0x4402, "return-code": 4, "times": 2}),
    ] {
        refused("fail-command", arguments);
    }
    let why = refused("fail-command", json!({"opcode": 0, "return-code": 4}));
    assert!(why.contains("Command Effects Log"), "{why}");
}

#[test]
fn lose_interrupt_takes_a_vector_and_a_count() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for (before, arguments) in [json!({"vector": 13}), json!({"vector": 0, "count": 0})].into_iter().enumerate() {
        assert_eq!(peer.execute("lose-interrupt", arguments), json!({"left-before": before}));
    }
    assert_eq!(*rig.injected.losses.lock(), [(13, 1), (0, 0)]);
    for arguments in [json!({}), json!({"vector": -1}), json!({"vector": 65536}), json!({"vector": 1, "times": 2})] {
        refused("lose-interrupt", arguments);
    }
    let why = refused("lose-interrupt", json!({"vector": 16}));
    assert!(why.contains("from 0 to 15"), "{why}");
}

#[test]
fn delay_command_takes_milliseconds_and_a_phase() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let told = [
        json!({"opcode": 0x4402, "milliseconds": 1, "phase": "background"}),
        json!({"opcode": 0x4000, "milliseconds": 600_000, "phase": "doorbell", "count": 0}),
    ];
    for (before, arguments) in told.into_iter().enumerate() {
        assert_eq!(peer.execute("delay-command", arguments), json!({"left-before": before}));
    }
    let (short, long) = (Duration::from_millis(1), Duration::from_secs(600));
    assert_eq!(
        *rig.injected.delays.lock(),
        [
            CommandDelay { opcode: 0x4402, by: short, phase: Phase::Background, count: 1 },
            CommandDelay { opcode: 0x4000, by: long, phase: Phase::Doorbell, count: 0 },
        ]
    );
    for arguments in [
        json!({"opcode": 0x4402, "milliseconds": 1}),
        json!({"opcode": 0x4402, "phase": "background"}),
        json!({"opcode": 65536, "milliseconds": 1, "phase": "background"}),
        json!({"opcode": 0x4402, "milliseconds": -1, "phase": "background"}),
        json!({"opcode": 0x4402, "milliseconds": 1.5, "phase": "background"}),
        json!({"opcode": 0x4402, "milliseconds": 1, "phase": "both"}),
        json!({"opcode": 0x4402, "milliseconds": 1, "phase": "background", "return-code": 4}),
    ] {
        refused("delay-command", arguments);
    }
    let why = refused("delay-command", json!({"opcode": 0, "milliseconds": 1, "phase": "doorbell"}));
    assert!(why.contains("Command Effects Log"), "{why}");
}
