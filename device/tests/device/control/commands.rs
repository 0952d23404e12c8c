//! The commands, on a real medium.

use cxl_cram_device::hdm::media::POISON_PATTERN;
use serde_json::{Value, json};

use super::peer::*;

fn load(rig: &Rig, block: u64) -> [u8; 4096] {
    let mut data = [0; 4096];
    rig.media.load(block, &mut data);
    data
}

fn generic(peer: &mut Peer, name: &str, arguments: Value) -> String {
    let (class, description) = peer.refused(json!({"execute": name, "arguments": arguments}));
    assert_eq!(class, "GenericError", "{name} {arguments}: {description}");
    description
}

#[test]
fn every_command_that_is_listed_exists() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let commands = peer.execute("query-commands", json!({}));
    let names: Vec<&str> = commands.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"cxl-inject-ct3-lthresh-watermark"), "{names:?}");
    for name in names {
        // With an argument that no command has, so that nothing is done.
        generic(&mut peer, name, json!({"no-such-argument": 1}));
    }
    assert_eq!(rig.injected.counts(), (0, 0));
    assert!(!rig.stop.is_triggered());
}

#[test]
fn status_describes_an_empty_medium_and_a_filled_one() {
    let rig = Rig::start();
    let mut peer = rig.client();
    let status = peer.execute("query-status", json!({}));
    let expected = [
        ("client-connected", json!(false)),
        ("window", json!("trap")),
        ("codec", json!("lz4")),
        ("capacity", json!(CAPACITY)),
        ("physical", json!(PHYSICAL)),
        ("used", json!(0)),
        ("free", json!(PHYSICAL)),
        ("blocked", json!(false)),
        ("logical", json!(0)),
        ("data-ratio", json!(null)),
        ("effective-ratio", json!(null)),
        ("recompressed-blocks", json!(0)),
        ("recompressed-saved", json!(0)),
        ("poisoned", json!(0)),
        ("overflows", json!(0)),
    ];
    for (name, value) in expected {
        assert_eq!(status[name], value, "{name}");
    }
    assert!(status["resident"]["bytes"].is_u64());

    rig.fill(0..10);
    let mut text = [0; 4096];
    text.iter_mut().zip(b"the quick brown fox ".iter().cycle()).for_each(|(to, from)| *to = *from);
    (10..30).for_each(|block| rig.media.store(block, &text));
    rig.media.store(30, &[0x55; 4096]);
    let status = peer.execute("query-status", json!({}));
    assert_eq!(status["blocks"], json!({"compressed": 20, "raw": 10, "same-filled": 1}));
    assert_eq!(status["logical"], 31 * 4096);
    assert_eq!(status["used"].as_u64().unwrap() + status["free"].as_u64().unwrap(), PHYSICAL);
    let ratio = status["data-ratio"].as_f64().unwrap();
    assert!((2.0..3.2).contains(&ratio), "30 blocks of which 20 compress well, in 10 and a bit: {ratio}");
    assert!(status["effective-ratio"].as_f64().unwrap() < ratio);
}

#[test]
fn physical_size_is_changed_in_bytes_or_with_a_suffix() {
    let rig = Rig::start();
    let mut peer = rig.client();
    assert_eq!(peer.execute("set-physical", json!({"size": "512K"})), json!({"physical": 512 << 10}));
    assert_eq!(peer.execute("set-physical", json!({"size": 2 << 20})), json!({"physical": 2 << 20}));
    assert_eq!(peer.execute("query-status", json!({}))["physical"], 2 << 20);
    for size in [json!("lots"), json!(-1), json!(1.5), json!(null), json!([1]), json!({"a": 1})] {
        let why = generic(&mut peer, "set-physical", json!({"size": size}));
        assert!(why.contains("the argument \"size\" is not valid"), "{why}");
    }
    assert!(generic(&mut peer, "set-physical", json!({})).contains("size"));
    assert!(generic(&mut peer, "set-physical", json!({"size": 1, "sizes": 1})).contains("sizes"));
    assert_eq!(peer.execute("query-status", json!({}))["physical"], 2 << 20);
}

#[test]
fn watermarks_are_changed_in_bytes_or_per_cent() {
    let rig = Rig::start();
    let mut peer = rig.client();
    peer.execute("set-watermarks", json!({"low": "25%", "high": "512K"}));
    let status = peer.execute("query-status", json!({}));
    assert_eq!((&status["low-watermark"], &status["high-watermark"]), (&json!(PHYSICAL / 4), &json!(512 << 10)));
    peer.execute("set-watermarks", json!({"low": 4096, "high": "50%"}));
    assert_eq!(peer.execute("query-status", json!({}))["low-watermark"], 4096);
    for (low, high) in [
        (json!("50%"), json!("25%")),
        (json!("50%"), json!("50%")),
        (json!("10%"), json!("101%")),
        (json!("10%"), json!("2M")),
        (json!(true), json!("50%")),
        (json!(10), json!("50%")),
        (json!("10"), json!("50%")),
    ] {
        generic(&mut peer, "set-watermarks", json!({"low": low, "high": high}));
    }
    generic(&mut peer, "set-watermarks", json!({"low": "10%"}));
    assert_eq!(peer.execute("query-status", json!({}))["low-watermark"], 4096);
}

#[test]
fn watermarks_are_injected_under_both_names() {
    let rig = Rig::start();
    let mut peer = rig.client();
    peer.execute("inject-low-watermark", json!({}));
    assert_eq!(rig.injected.counts(), (1, 0));
    peer.execute("cxl-inject-ct3-lthresh-watermark", json!({"path": "/machine/peripheral/cxl-mem0"}));
    assert_eq!(rig.injected.counts(), (2, 0));
    peer.execute("inject-high-watermark", json!({}));
    peer.execute("cxl-inject-ct3-hthresh-watermark", json!({"path": "x"}));
    assert_eq!(rig.injected.counts(), (2, 2));
    assert_eq!(peer.execute("query-status", json!({}))["blocked"], false, "the medium was left alone");
}

#[test]
fn poison_is_injected_listed_and_cleared() {
    let rig = Rig::start();
    let mut peer = rig.client();
    rig.fill(0..4);
    let before = load(&rig, 1);
    peer.execute("inject-poison", json!({"dpa": 4096 + 64, "length": 128}));
    peer.execute("cxl-inject-poison", json!({"path": "/machine/peripheral/m", "start": "8K", "length": 64}));
    assert_eq!(
        peer.execute("query-poison", json!({})),
        json!({"records": [
            {"start": 4160, "length": 128, "source": "injected"},
            {"start": 8192, "length": 64, "source": "injected"},
        ], "more": null})
    );
    assert_eq!(peer.execute("query-status", json!({}))["poisoned"], 192);
    let poisoned = load(&rig, 1);
    let told = peer.receive();
    assert_eq!((&told["event"], &told["data"]), (&json!("CXL_CRAM_POISON_READ"), &json!({"dpa": 4160, "length": 128})));
    assert_eq!(poisoned[64..72], POISON_PATTERN.to_le_bytes());
    assert_eq!(poisoned[192..], before[192..]);

    let records = peer.execute("query-poison", json!({"start": 8192, "length": 4096}));
    assert_eq!(records["records"].as_array().unwrap().len(), 1);

    peer.execute("clear-poison", json!({"start": 4096, "length": 4096}));
    assert_eq!(peer.execute("query-poison", json!({}))["records"].as_array().unwrap().len(), 1);
    let cleared = load(&rig, 1);
    assert_eq!(cleared[64..192], [0; 128]);
    assert_eq!((&cleared[..64], &cleared[192..]), (&before[..64], &before[192..]), "clean lines are left alone");
}

#[test]
fn bad_poison_ranges_are_refused() {
    let rig = Rig::start();
    let mut peer = rig.client();
    for name in ["inject-poison", "clear-poison", "cxl-inject-poison"] {
        for (start, length) in [
            (json!(1), json!(64)),
            (json!(0), json!(1)),
            (json!(0), json!(0)),
            (json!(CAPACITY), json!(64)),
            (json!(CAPACITY - 64), json!(128)),
            (json!(u64::MAX - 63), json!(64)),
            (json!(64), json!(u64::MAX - 63)),
            (json!(0), json!(CAPACITY)),
            (json!("x"), json!(64)),
            (json!(0), json!(null)),
        ] {
            generic(&mut peer, name, json!({"start": start, "length": length}));
        }
        generic(&mut peer, name, json!({"start": 0}));
        generic(&mut peer, name, json!({"length": 64}));
        generic(&mut peer, name, json!({"start": 0, "dpa": 0, "length": 64}));
    }
    assert_eq!(peer.execute("query-poison", json!({"start": u64::MAX}))["records"], json!([]));
    assert_eq!(peer.execute("query-poison", json!({}))["records"], json!([]));
}

#[test]
fn no_more_poison_can_be_injected_than_the_list_holds() {
    let rig = Rig::start();
    let mut peer = rig.client();
    peer.execute("inject-poison", json!({"start": 0, "length": 256 * 64}));
    assert!(generic(&mut peer, "inject-poison", json!({"start": "1M", "length": 64})).contains("clear"));
    peer.execute("clear-poison", json!({"start": 0, "length": "1M"}));
    peer.execute("inject-poison", json!({"start": "1M", "length": 64}));
}

#[test]
fn a_long_poison_list_is_returned_in_parts() {
    let rig = Rig::start();
    // Every second block, so that no two runs join: each is stored where nothing fits any more.
    rig.fill(0..PHYSICAL / 4096);
    let first = PHYSICAL / 4096;
    for n in 0..1100 {
        rig.fill(first + 2 * n..first + 2 * n + 1);
    }
    let mut peer = rig.client();
    let answer = peer.execute("query-poison", json!({}));
    assert_eq!(answer["records"].as_array().unwrap().len(), 1024);
    let rest = peer.execute("query-poison", json!({"start": answer["more"]}));
    assert_eq!(rest["more"], json!(null));
    assert_eq!(rest["records"][0]["source"], "internal");
    let told = 1024 + rest["records"].as_array().unwrap().len() as u64;
    assert_eq!(told * 4096, peer.execute("query-status", json!({}))["poisoned"].as_u64().unwrap());
}

#[test]
fn a_reading_without_a_flush_leaves_the_window_alone() {
    let rig = Rig::start();
    let window = rig.counting_window();
    let mut peer = rig.client();
    assert_eq!(peer.execute("query-status", json!({"flush": false}))["used"], 0);
    assert_eq!(window.flushes(), 0);
    peer.execute("query-status", json!({}));
    peer.execute("query-status", json!({"flush": true}));
    assert_eq!(window.flushes(), 2);
    assert!(generic(&mut peer, "query-status", json!({"flush": "no"})).contains("true or false"));
}

#[test]
fn status_counts_the_crossings_of_the_watermarks() {
    let rig = Rig::start();
    // A client each, so that no event comes between question and answer.
    let status = || rig.client().execute("query-status", json!({}));
    assert_eq!(status()["crossings"], json!({"low": 0, "high": 0}));
    rig.fill(0..220);
    assert_eq!(status()["crossings"], json!({"low": 1, "high": 0}));
    rig.media.zero(0..220 * 4096).unwrap();
    assert_eq!(status()["crossings"], json!({"low": 1, "high": 1}));
    assert_eq!(status()["interrupts"], json!({}), "no vector is armed");
}
