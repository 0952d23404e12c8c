//! Greeting, negotiation, framing, bad input, many clients, and the end.

use std::{net::Shutdown, os::unix::fs::PermissionsExt};

use cxl_cram_device::{control::Server, vfio_user::BindError};
use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::peer::*;

#[test]
fn the_greeting_is_what_qmp_shell_looks_for() {
    let rig = Rig::start();
    let greeting = rig.stranger().receive();
    assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64(), "{greeting}");
    assert!(greeting["QMP"]["version"]["qemu"]["micro"].is_u64());
    assert!(greeting["QMP"]["version"]["package"].as_str().unwrap().contains("cxl-cram"));
    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
}

#[test]
fn commands_are_refused_before_negotiation_and_negotiation_after() {
    let rig = Rig::start();
    let mut peer = rig.stranger();
    peer.receive();
    for name in ["query-status", "quit", "no-such"] {
        assert_eq!(peer.refused(json!({"execute": name})).0, "CommandNotFound");
    }
    let (class, _) = peer.refused(json!({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}));
    assert_eq!(class, "GenericError");
    assert_eq!(peer.refused(json!({"execute": "qmp_capabilities", "arguments": {"x": 1}})).0, "GenericError");
    assert_eq!(peer.execute("qmp_capabilities", json!({"enable": []})), json!({}));
    assert_eq!(peer.refused(json!({"execute": "qmp_capabilities"})).0, "CommandNotFound");
    assert!(!rig.stop.is_triggered());
}

#[test]
fn an_id_of_any_kind_comes_back_with_the_answer() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for id in [json!(7), json!("x"), json!(null), json!([1, {"a": 2}]), json!({})] {
        assert_eq!(peer.request(json!({"execute": "query-version", "id": id}))["id"], id);
        assert_eq!(peer.request(json!({"execute": "no-such", "id": id}))["id"], id);
        assert_eq!(peer.request(json!({"id": id}))["id"], id);
    }
    assert!(peer.request(json!({"execute": "query-version"})).get("id").is_none());
}

#[test]
fn requests_may_be_cut_up_glued_together_or_spread_over_lines() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for byte in br#"{"execute":"query-version","id":1}"# {
        peer.send(&[*byte]);
    }
    assert_eq!(peer.receive()["id"], 1);
    peer.send(b"\r\n\n  {\"execute\":\n\t\"query-version\",\n\"id\": 2\n}{\"execute\":\"query-version\",\"id\":3}\n");
    assert_eq!(peer.receive()["id"], 2);
    assert_eq!(peer.receive()["id"], 3);
}

#[test]
fn requests_of_the_wrong_form_are_refused_and_the_conversation_goes_on() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for text in [
        "[]",
        "\"execute\" ",
        "1 ",
        "null",
        "{}",
        r#"{"execute":1}"#,
        r#"{"execute":"query-version","arguments":[]}"#,
        r#"{"execute":"query-version","arguments":{"x":1}}"#,
        r#"{"execute":"query-version","control":1}"#,
        r#"{"exec-oob":"query-version"}"#,
    ] {
        peer.send(text.as_bytes());
        assert_eq!(peer.receive()["error"]["class"], "GenericError", "{text}");
    }
    assert_eq!(peer.refused(json!({"execute": "no-such"})).0, "CommandNotFound");
    peer.execute("query-version", json!({}));
}

#[test]
fn what_is_not_json_is_refused_up_to_the_next_line() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for text in [&b"}\n"[..], b"{'execute'}\n", b"{\"execute\": }\n", b"\xff\xfe\n", b"{\"a\":1,}\n", b"nonsense\n"] {
        peer.send(text);
        assert_eq!(peer.receive()["error"]["class"], "GenericError", "{text:?}");
    }
    peer.send(&[&b"[".repeat(1000)[..], b"\n"].concat());
    assert_eq!(peer.receive()["error"]["class"], "GenericError", "nested too deeply");
    peer.execute("query-version", json!({}));
}

#[test]
fn a_request_that_does_not_end_is_cut_off_and_the_next_client_is_served() {
    let rig = Rig::start();
    let mut peer = rig.client();
    peer.send(b"{\"execute\":\"");
    // The server may close the connection before it has all: it has had enough.
    let _ = std::io::Write::write_all(&mut peer.stream, &vec![b'x'; 70_000]);
    assert!(peer.receive()["error"]["desc"].as_str().unwrap().contains("65536"));
    peer.expect_closed();
    rig.client().execute("query-version", json!({}));
}

#[test]
fn a_long_request_that_ends_is_answered() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let id = "x".repeat(60_000);
    assert_eq!(peer.request(json!({"execute": "query-version", "id": id}))["id"], id);
}

#[test]
fn what_was_asked_before_the_client_shut_its_side_is_answered() {
    let rig = Rig::start();
    let mut peer = rig.stranger();
    peer.send(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-version\",\"id\":9}\n");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    peer.receive();
    peer.receive();
    assert_eq!(peer.receive()["id"], 9);
    peer.expect_closed();
}

#[test]
fn eight_clients_are_served_at_once_and_the_ninth_is_refused() {
    let rig = Rig::start();
    let mut peers: Vec<Peer> = (0..8).map(|_| rig.client()).collect();
    let mut ninth = rig.stranger();
    assert_eq!(ninth.receive()["error"]["class"], "GenericError");
    ninth.expect_closed();
    for peer in &mut peers {
        peer.execute("query-version", json!({}));
    }
    // One goes; the server has seen it go once it takes another.
    drop(peers.pop());
    loop {
        let mut peer = rig.stranger();
        if peer.receive()["QMP"].is_object() {
            break;
        }
    }
}

#[test]
fn a_client_that_does_not_read_its_answers_delays_only_itself() {
    let rig = Rig::start();
    let deaf = rig.client();
    deaf.stream.set_nonblocking(true).unwrap();
    let request = b"{\"execute\":\"query-commands\"}\n".repeat(100);
    while std::io::Write::write(&mut &deaf.stream, &request).is_ok() {}
    let mut peer = rig.client();
    for _ in 0..10 {
        peer.execute("query-status", json!({}));
    }
}

#[test]
fn quit_is_answered_and_ends_the_server() {
    let mut rig = Rig::start();
    let mut peer = rig.client();
    let mut other = rig.client();
    assert_eq!(peer.request(json!({"execute": "quit", "id": 1})), json!({"return": {}, "id": 1}));
    rig.join();
    assert!(rig.stop.is_triggered());
    peer.expect_closed();
    other.expect_closed();
    assert!(!rig.path.exists());
}

#[test]
fn stop_ends_the_server_in_the_middle_of_a_request() {
    let mut rig = Rig::start();
    let mut peer = rig.client();
    peer.send(b"{\"execute\":");
    rig.stop.trigger();
    rig.join();
    peer.expect_closed();
}

#[test]
fn the_socket_is_private_and_a_living_one_is_left_alone() {
    let rig = Rig::start();
    assert_eq!(std::fs::metadata(&rig.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Server::bind(&rig.path), Err(BindError::InUse { .. })));
    rig.client().execute("query-version", json!({}));
}

#[test]
fn whatever_a_client_sends_the_next_client_is_served() {
    let rig = Rig::start();
    let request = prop_oneof![
        Just(br#"{"execute":"qmp_capabilities"}"#.to_vec()),
        Just(br#"{"execute":"query-status","id":[1]}"#.to_vec()),
        Just(br#"{"execute":"inject-poison","arguments":{"dpa":0,"length":64}}"#.to_vec()),
        Just(br#"{"execute":"set-physical","arguments":{"size":"1M"}}"#.to_vec()),
        vec(prop::sample::select(br#"{}[]":,\0159eE+-. nrtuxabfls"#.to_vec()), 0..60),
        vec(any::<u8>(), 0..60),
    ];
    let mutation = proptest::option::of((any::<prop::sample::Index>(), any::<u8>()));
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(requests in vec((request, mutation), 0..12))| {
        let mut peer = rig.stranger();
        let mut bytes = Vec::new();
        for (mut request, mutation) in requests {
            if let Some((at, value)) = mutation.filter(|_| !request.is_empty()) {
                let at = at.index(request.len());
                request[at] = value;
            }
            bytes.extend(request);
            bytes.push(b'\n');
        }
        peer.send(&bytes);
        peer.stream.shutdown(Shutdown::Write).unwrap();
        // Everything it says is JSON, and it ends.
        let mut all = String::new();
        std::io::Read::read_to_string(&mut peer.stream, &mut all).unwrap();
        for line in all.lines() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{}", line);
        }
        drop(peer);
        rig.client().execute("query-version", json!({}));
    });
}
