//! VERSION.

use rustix::io::Errno;

use super::peer::*;

/// What QEMU sends, in its order and to its length.
const QEMU: &str = r#"{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 16, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}"#;

fn payload(major: u16, minor: u16, data: &[u8]) -> Vec<u8> {
    [&major.to_ne_bytes()[..], &minor.to_ne_bytes(), data].concat()
}

fn with_nul(json: &str) -> Vec<u8> {
    [json.as_bytes(), &[0]].concat()
}

#[test]
fn the_version_reply_has_minor_0_fits_the_request_and_lacks_write_multiple() {
    let rig = Rig::start();
    let request = payload(0, 0, &with_nul(QEMU));
    let reply = rig.stranger().request(VERSION, &request);
    assert_eq!(reply.error, None);
    assert_eq!((reply.id, reply.command), (0x5a5a, VERSION));
    assert!(reply.payload.len() <= request.len());
    assert_eq!(reply.payload[..4], [0; 4]);
    let (nul, json) = reply.payload[4..].split_last().unwrap();
    assert_eq!(*nul, 0);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json, serde_json::json!({"capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 1048576}}));
    rig.device.wait_for(&Call::Connected, 1);
}

#[test]
fn a_reply_is_cut_down_to_whole_capabilities_that_fit_the_request() {
    let rig = Rig::start();
    for data in [&b""[..], b"{}\0", br#"{"capabilities":{                         }}"#, br#"{"capabilities":{}}"#] {
        let mut data = data.to_vec();
        if data.last().is_some_and(|last| *last != 0) {
            data.push(0);
        }
        let request = payload(0, 0, &data);
        let reply = rig.stranger().request(VERSION, &request);
        assert_eq!(reply.error, None, "{data:?}");
        assert!(reply.payload.len() <= request.len(), "{} > {}", reply.payload.len(), request.len());
        if let Some((nul, json)) = reply.payload[4..].split_last() {
            assert_eq!(*nul, 0);
            serde_json::from_slice::<serde_json::Value>(json).unwrap();
        }
    }
}

#[test]
fn a_newer_minor_version_is_answered_with_ours() {
    let rig = Rig::start();
    let reply = rig.stranger().request(VERSION, &payload(0, 1, b""));
    assert_eq!(reply.error, None);
    assert_eq!(reply.payload, [0; 4]);
}

#[test]
fn the_smaller_transfer_size_is_agreed_and_kept() {
    let rig = Rig::start();
    let peer = rig.stranger();
    let reply = peer.request(VERSION, &version_payload(r#"{"capabilities":{"max_data_xfer_size":4096}}"#));
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""max_data_xfer_size":4096"#));
    assert_eq!(peer.read(BAR2, 0, 4096).error, None);
    assert_eq!(peer.read(BAR2, 0, 4097).error, Some(Errno::INVAL));
}

#[test]
fn a_client_that_takes_no_descriptors_is_offered_no_mapping() {
    let rig = Rig::start();
    let peer = rig.stranger();
    peer.request(VERSION, &version_payload(r#"{"capabilities":{"max_msg_fds":0}}"#));
    let reply = peer.request(GET_REGION_INFO, &words(&[64, 0, BAR2, 0, 0, 0, 0, 0]));
    assert_eq!(reply.error, None);
    assert_eq!(reply.u32_at(4), 3, "read and write, not mmap");
    assert!(reply.fds.is_empty());
}

#[test]
fn malformed_versions_are_refused_and_the_client_may_try_again() {
    let rig = Rig::start();
    let peer = rig.stranger();
    let bad: &[&[u8]] = &[
        b"",
        &[0, 0, 0],
        &payload(1, 0, &with_nul("{}")),
        &payload(0, 0, b"{}"),
        &payload(0, 0, b"{\0}\0"),
        &payload(0, 0, b"\0"),
        &payload(0, 0, &with_nul("[")),
        &payload(0, 0, &with_nul("[1]")),
        &payload(0, 0, &with_nul("\"text\"")),
        &payload(0, 0, b"\xff\xfe\0"),
        &payload(0, 0, &with_nul(r#"{"capabilities":{"max_data_xfer_size":-1}}"#)),
        &payload(0, 0, &with_nul(r#"{"capabilities":{"max_msg_fds":"many"}}"#)),
        &payload(0, 0, &with_nul(&"[".repeat(100_000))),
    ];
    for payload in bad {
        assert_eq!(peer.request(VERSION, payload).error, Some(Errno::INVAL), "{:?}", &payload[..payload.len().min(64)]);
    }
    assert_eq!(rig.device.calls(), []);
    assert_eq!(peer.request(VERSION, &version_payload("{}")).error, None);
    peer.expect_working();
}

#[test]
fn nothing_is_carried_out_before_version() {
    let rig = Rig::start();
    let peer = rig.stranger();
    for command in (2..=10).chain([RESET]) {
        let reply = peer.request(command, &words(&[32, 3, 0, 0, 0, 0, 4096, 0]));
        assert_eq!(reply.error, Some(Errno::INVAL), "command {command}");
        assert_eq!(reply.command, command);
    }
    assert_eq!(rig.device.calls(), []);
}

#[test]
fn a_second_version_is_refused_and_changes_nothing() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(peer.request(VERSION, &version_payload("{}")).error, Some(Errno::INVAL));
    peer.expect_working();
    assert_eq!(rig.device.calls(), [Call::Connected]);
}

#[test]
fn a_client_that_never_negotiated_is_neither_connected_nor_gone() {
    let rig = Rig::start();
    drop(rig.stranger());
    let peer = rig.client();
    peer.expect_working();
    assert_eq!(rig.device.calls(), [Call::Connected]);
}
