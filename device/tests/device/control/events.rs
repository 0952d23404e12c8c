//! Events: which clients receive them, and that a client that does not read them delays no other.

use cxl_cram_device::hdm::media::{Crossing, MediaEvent};
use serde_json::json;

use super::peer::*;

#[test]
fn every_client_that_has_negotiated_receives_crossings_and_losses() {
    let rig = Rig::start();
    let mut peers = [rig.client(), rig.client()];
    let mut stranger = rig.stranger();
    stranger.receive();
    rig.fill(0..PHYSICAL / 4096 + 8);
    for peer in &mut peers {
        let low = peer.receive();
        assert_eq!(low["event"], "CXL_CRAM_LOW_WATERMARK", "{low}");
        assert!(low["timestamp"]["seconds"].as_u64().unwrap() > 1_500_000_000);
        assert!(low["timestamp"]["microseconds"].as_u64().unwrap() < 1_000_000);
        let mut lost = 0;
        while lost < 8 {
            let overflow = peer.receive();
            assert_eq!(overflow["event"], "CXL_CRAM_OVERFLOW", "{overflow}");
            assert_eq!(overflow["data"]["dpa"], PHYSICAL + lost * 4096);
            lost += overflow["data"]["blocks"].as_u64().unwrap();
        }
        assert_eq!(lost, 8);
    }
    rig.media.zero(0..PHYSICAL).unwrap();
    for peer in &mut peers {
        assert_eq!(peer.receive()["event"], "CXL_CRAM_HIGH_WATERMARK");
    }
    // Its first answer is the next it hears: there were no events for it.
    assert_eq!(stranger.request(json!({"execute": "qmp_capabilities"})), json!({"return": {}}));
}

#[test]
fn a_crossing_that_a_command_causes_is_reported() {
    let rig = Rig::start();
    let mut peer = rig.client();
    rig.fill(0..128);
    peer.send(b"{\"execute\":\"set-watermarks\",\"arguments\":{\"low\":\"60%\",\"high\":\"70%\"}}");
    assert_eq!(peer.receive(), json!({"return": {}}));
    assert_eq!(peer.receive()["event"], "CXL_CRAM_LOW_WATERMARK");
}

#[test]
fn a_client_that_does_not_read_its_events_is_dropped_and_delays_no_other() {
    let rig = Rig::start();
    let mut deaf = rig.client();
    let mut peer = rig.client();
    // Far more than the socket and the server will hold for it.
    for _ in 0..200 {
        for _ in 0..50 {
            rig.events.media(MediaEvent::Crossed(Crossing::Low));
            rig.events.media(MediaEvent::Crossed(Crossing::High));
        }
        for _ in 0..100 {
            assert!(peer.receive()["event"].is_string());
        }
    }
    let mut heard = 0;
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut deaf.reader, &mut line).unwrap() > 0 {
        line.clear();
        heard += 1;
    }
    assert!(heard < 20_000, "it heard all {heard} although it did not read");
    peer.execute("query-version", json!({}));
}
