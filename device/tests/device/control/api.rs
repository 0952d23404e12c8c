//! The wire form of every command, answer and event: member names and their order are what scripts depend on.

use cxl_cram_device::{
    control::api::*,
    cxl::{
        events::Log,
        ras::{Correctable, Uncorrectable},
    },
    hdm::media::{PoisonSource, Threshold},
};
use serde::{Serialize, de::DeserializeOwned};

use super::peer::Rig;

/// Checks that a value has this form, and that the form is read as the value.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, wire: &str) {
    assert_eq!(serde_json::to_string(&value).unwrap(), wire);
    assert_eq!(serde_json::from_str::<T>(wire).unwrap(), value);
}

/// Checks the request that executes a command.
#[track_caller]
fn executes<C: Command + DeserializeOwned + PartialEq + std::fmt::Debug>(command: C, name: &str, arguments: &str) {
    let request = serde_json::to_string(&Execute::<_>::from(&command)).unwrap();
    assert_eq!(request, format!(r#"{{"execute":"{name}","arguments":{arguments}}}"#));
    is(command, arguments);
}

fn status() -> Status {
    Status {
        client_connected: true,
        window: "fuse".into(),
        codec: "lz4".into(),
        capacity: 1,
        physical: 2,
        used: 3,
        free: 4,
        low_watermark: 5,
        high_watermark: 6,
        blocked: false,
        crossings: Crossings { low: 7, high: 8 },
        interrupts: [(0, 1), (12, 2)].into(),
        logical: 9,
        data: 10,
        metadata: 11,
        data_ratio: Some(3.25),
        effective_ratio: None,
        blocks: Blocks { compressed: 12, raw: 13, same_filled: 14 },
        recompressed_blocks: 15,
        recompressed_saved: 16,
        poisoned: 17,
        overflows: 18,
        lag: 31,
        resident: Resident {
            bytes: 19,
            bound: 20,
            faults: 21,
            prefetched: 22,
            prefetched_used: 23,
            written_back: 24,
            evicted: 25,
        },
    }
}

const STATUS: &str = concat!(
    r#"{"client-connected":true,"window":"fuse","codec":"lz4","capacity":1,"physical":2,"used":3,"free":4,"#,
    r#""low-watermark":5,"high-watermark":6,"blocked":false,"crossings":{"low":7,"high":8},"#,
    r#""interrupts":{"0":1,"12":2},"logical":9,"data":10,"metadata":11,"data-ratio":3.25,"effective-ratio":null,"#,
    r#""blocks":{"compressed":12,"raw":13,"same-filled":14},"recompressed-blocks":15,"recompressed-saved":16,"#,
    r#""poisoned":17,"overflows":18,"lag":31,"#,
    r#""resident":{"bytes":19,"bound":20,"faults":21,"prefetched":22,"prefetched-used":23,"written-back":24,"evicted":25}}"#
);

#[test]
fn answers_have_their_members_in_order() {
    is(status(), STATUS);
    is(Done {}, "{}");
    is(Physical { physical: 4096 }, r#"{"physical":4096}"#);
    is(Pending { left_before: 2 }, r#"{"left-before":2}"#);
    is(vec![CommandName { name: "quit".into() }], r#"[{"name":"quit"}]"#);
    let run = |start, source| PoisonRun { start, length: 64, source };
    is(
        PoisonList { records: vec![run(0, PoisonSource::Injected), run(64, PoisonSource::Internal)], more: None },
        r#"{"records":[{"start":0,"length":64,"source":"injected"},{"start":64,"length":64,"source":"internal"}],"more":null}"#,
    );
    is(PoisonList { records: Vec::new(), more: Some(4096) }, r#"{"records":[],"more":4096}"#);
    let version = Version { qemu: QemuVersion { major: 1, minor: 2, micro: 3 }, package: "p 1.2.3".into() };
    is(
        Greeting { qmp: Capabilities { version, capabilities: Vec::new() } },
        r#"{"QMP":{"version":{"qemu":{"major":1,"minor":2,"micro":3},"package":"p 1.2.3"},"capabilities":[]}}"#,
    );
}

#[test]
fn the_device_sends_what_the_types_describe() {
    let rig = Rig::start();
    rig.fill(0..1);
    let sent = rig.client().request(serde_json::json!({"execute": "query-status"}));
    let Message::Return(parsed) = serde_json::from_value::<Message<Status>>(sent.clone()).unwrap() else {
        panic!("no answer but {sent}");
    };
    assert_eq!(parsed.used, 4096);
    assert_eq!(serde_json::to_string(&parsed).unwrap(), sent["return"].to_string());
    let names = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&sent["return"].to_string()), names(STATUS));
}

#[test]
fn events_carry_name_data_and_time() {
    let at = |event| Notification { event, timestamp: Timestamp { seconds: 1, microseconds: 2 } };
    let time = r#""timestamp":{"seconds":1,"microseconds":2}}"#;
    for (event, wire) in [
        (Event::LowWatermark {}, r#"{"event":"CXL_CRAM_LOW_WATERMARK","data":{},"#),
        (Event::HighWatermark {}, r#"{"event":"CXL_CRAM_HIGH_WATERMARK","data":{},"#),
        (Event::Overflow { dpa: 3, blocks: 4 }, r#"{"event":"CXL_CRAM_OVERFLOW","data":{"dpa":3,"blocks":4},"#),
        (Event::PoisonRead { dpa: 3, length: 4 }, r#"{"event":"CXL_CRAM_POISON_READ","data":{"dpa":3,"length":4},"#),
    ] {
        is(at(event), &format!("{wire}{time}"));
    }
}

#[test]
fn a_client_distinguishes_answers_refusals_and_events() {
    let read = |line: &str| serde_json::from_str::<Message<Status>>(line);
    assert_eq!(read(&format!(r#"{{"return":{STATUS},"id":7}}"#)).unwrap(), Message::Return(status()));
    let refused = read(r#"{"error":{"class":"CommandNotFound","desc":"no"}}"#).unwrap().answer().unwrap_err();
    assert_eq!((format!("{:?}", refused.class), refused.desc.as_str()), ("CommandNotFound".into(), "no"));
    let event = r#"{"event":"CXL_CRAM_LOW_WATERMARK","data":{},"timestamp":{"seconds":1,"microseconds":2}}"#;
    assert_eq!(read(event).unwrap().answer().unwrap(), None);
    // What is none of them is an error that names what is missing.
    let error = read(r#"{"return":{"used":1}}"#).unwrap_err().to_string();
    assert!(error.contains("client-connected"), "{error}");
    assert!(read("{}").is_err());
}

#[test]
fn commands_have_their_names_and_arguments() {
    executes(Negotiation::default(), "qmp_capabilities", "{}");
    executes(QueryCommands {}, "query-commands", "{}");
    executes(QueryVersion {}, "query-version", "{}");
    executes(Quit {}, "quit", "{}");
    executes(QueryStatus { flush: false }, "query-status", r#"{"flush":false}"#);
    executes(SetPhysical { size: 4096 }, "set-physical", r#"{"size":4096}"#);
    let watermarks = SetWatermarks { low: Threshold::Percent(12.5), high: Threshold::Bytes(1 << 20) };
    executes(watermarks, "set-watermarks", r#"{"low":"12.5%","high":1048576}"#);
    executes(QueryPoison::default(), "query-poison", r#"{"start":0}"#);
    executes(QueryPoison { start: 64, length: Some(64) }, "query-poison", r#"{"start":64,"length":64}"#);
    executes(InjectPoison { start: 64, length: 128 }, "inject-poison", r#"{"start":64,"length":128}"#);
    executes(ClearPoison { start: 64, length: 128 }, "clear-poison", r#"{"start":64,"length":128}"#);
    executes(InjectLowWatermark {}, "inject-low-watermark", "{}");
    executes(InjectHighWatermark {}, "inject-high-watermark", "{}");
    executes(
        FailCommand { opcode: 0x4402, return_code: 4, count: 3, background: true },
        "fail-command",
        r#"{"opcode":17410,"return-code":4,"count":3,"background":true}"#,
    );
    for (phase, wire) in [(Phase::Background, "background"), (Phase::Doorbell, "doorbell")] {
        executes(
            DelayCommand { opcode: 0x4402, milliseconds: 5000, phase, count: 3 },
            "delay-command",
            &format!(r#"{{"opcode":17410,"milliseconds":5000,"phase":"{wire}","count":3}}"#),
        );
    }
    executes(LoseInterrupt { vector: 13, count: 2 }, "lose-interrupt", r#"{"vector":13,"count":2}"#);
    executes(
        InjectUncorrectableErrors {
            errors: vec![UncorrectableError { r#type: Uncorrectable::MemDataEcc, header: vec![1, 2] }],
        },
        "cxl-inject-uncorrectable-errors",
        r#"{"errors":[{"type":"mem-data-ecc","header":[1,2]}]}"#,
    );
    executes(
        InjectCorrectableError { r#type: Correctable::CrcThreshold },
        "cxl-inject-correctable-error",
        r#"{"type":"crc-threshold"}"#,
    );
}

#[test]
fn event_records_have_the_arguments_of_qemus_commands() {
    let common = EventCommon { flags: 4, ld_id: Some(3), ..EventCommon::of(Log::Information) };
    let component = EventComponent { component_id: Some("dimm".into()), is_comp_id_pldm: true };
    executes(
        InjectEvent {
            common,
            uuid: "5e1f0000-0000-4000-8000-000000000001".parse().unwrap(),
            data: vec![0xc0, 0xff, 0xee],
        },
        "inject-event",
        concat!(
            r#"{"log":"informational","flags":4,"maint-op-class":0,"ld-id":3,"#,
            r#""uuid":"5e1f0000-0000-4000-8000-000000000001","data":"c0ffee"}"#
        ),
    );
    executes(
        InjectGeneralMediaEvent {
            common,
            component: component.clone(),
            dpa: 64,
            descriptor: 1,
            r#type: 2,
            transaction_type: 3,
            channel: Some(4),
            rank: None,
            device: None,
            cme_ev_flags: 0,
            cme_count: 5,
            sub_type: 0,
        },
        "cxl-inject-general-media-event",
        concat!(
            r#"{"log":"informational","flags":4,"maint-op-class":0,"ld-id":3,"#,
            r#""component-id":"dimm","is-comp-id-pldm":true,"dpa":64,"descriptor":1,"type":2,"transaction-type":3,"#,
            r#""channel":4,"cme-ev-flags":0,"cme-count":5,"sub-type":0}"#
        ),
    );
    executes(
        InjectDramEvent {
            common: EventCommon::of(Log::Fatal),
            component: EventComponent::default(),
            dpa: 64,
            descriptor: 1,
            r#type: 2,
            transaction_type: 3,
            channel: None,
            rank: Some(4),
            nibble_mask: Some(5),
            bank_group: Some(6),
            bank: Some(7),
            row: Some(8),
            column: Some(9),
            correction_mask: Some(vec![10]),
            sub_channel: Some(11),
            cme_ev_flags: 12,
            cvme_count: 13,
            sub_type: 14,
        },
        "cxl-inject-dram-event",
        concat!(
            r#"{"log":"fatal","flags":0,"maint-op-class":0,"is-comp-id-pldm":false,"#,
            r#""dpa":64,"descriptor":1,"type":2,"transaction-type":3,"rank":4,"nibble-mask":5,"bank-group":6,"bank":7,"#,
            r#""row":8,"column":9,"correction-mask":[10],"sub-channel":11,"cme-ev-flags":12,"cvme-count":13,"sub-type":14}"#
        ),
    );
    executes(
        InjectMemoryModuleEvent {
            common: EventCommon::of(Log::Warning),
            component: EventComponent::default(),
            r#type: 1,
            health_status: 2,
            media_status: 3,
            additional_status: 4,
            life_used: 5,
            temperature: -6,
            dirty_shutdown_count: 7,
            corrected_volatile_error_count: 8,
            corrected_persistent_error_count: 9,
            sub_type: 10,
        },
        "cxl-inject-memory-module-event",
        concat!(
            r#"{"log":"warning","flags":0,"maint-op-class":0,"is-comp-id-pldm":false,"#,
            r#""type":1,"health-status":2,"media-status":3,"additional-status":4,"life-used":5,"temperature":-6,"#,
            r#""dirty-shutdown-count":7,"corrected-volatile-error-count":8,"corrected-persistent-error-count":9,"sub-type":10}"#
        ),
    );
}
