//! Clients that keep the server waiting: which of them keeps its place, and which makes room for the next.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use cxl_cram_device::vfio_user::Patience;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use super::peer::*;

const LONG: Duration = Duration::from_secs(3600);

/// Connects again and again until it is served.
fn served_in_the_end(rig: &Rig) -> Peer {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let peer = rig.stranger();
        let version = message(VERSION, &version_payload("{}"));
        // It is closed without an answer if its turn comes while it is being refused.
        let sent = (&peer.stream).write_all(&version).is_ok();
        if sent && matches!(recv(&peer.stream, &mut [0; 1], RecvFlags::PEEK), Ok((1, _))) {
            match peer.receive().error {
                None => return peer,
                Some(error) => assert_eq!(error, Errno::BUSY),
            }
        }
        assert!(Instant::now() < deadline, "never served");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn expect_dropped(peer: &Peer) {
    assert!(matches!((&peer.stream).read(&mut [0; 16]), Ok(0) | Err(_)));
}

#[test]
fn a_client_that_has_sent_its_own_end_and_gone_is_seen_to_go() {
    let rig = Rig::with_patience(Patience { version: LONG, message: LONG });
    for message in [&[0; 8][..], &header(GET_INFO, 100, 0)] {
        let peer = rig.client();
        peer.expect_working();
        peer.send_with_fds(message, &[peer.stream.as_fd()]);
        drop(peer);
        // It has gone once the server has received its end.
        served_in_the_end(&rig).expect_working();
        rig.device.wait_for(&Call::Gone, 1);
        rig.device.forget_calls();
    }
    let stranger = rig.stranger();
    stranger.send_with_fds(&[0; 8], &[stranger.stream.as_fd()]);
    drop(stranger);
    served_in_the_end(&rig).expect_working();
}

#[test]
fn a_client_that_does_not_say_its_version_makes_room_for_the_next() {
    let rig = Rig::with_patience(Patience { version: Duration::from_millis(100), message: LONG });
    for beginning in [&[][..], &[0; 8], &message(VERSION, &version_payload("{}"))[..20]] {
        let silent = rig.stranger();
        silent.send(beginning);
        served_in_the_end(&rig).expect_working();
        expect_dropped(&silent);
    }
    // Nor does another message help, however often it is sent.
    let chatty = rig.stranger();
    assert_eq!(chatty.request(GET_INFO, &[0; 16]).error, Some(Errno::INVAL));
    served_in_the_end(&rig).expect_working();
}

#[test]
fn a_client_that_does_not_end_its_message_makes_room_for_the_next() {
    let rig = Rig::with_patience(Patience { version: LONG, message: Duration::from_millis(100) });
    for beginning in [&[0; 8][..], &header(GET_INFO, 100, 0)] {
        let slow = rig.client();
        slow.send(beginning);
        served_in_the_end(&rig).expect_working();
        expect_dropped(&slow);
    }
}

#[test]
fn a_client_that_does_not_take_its_replies_makes_room_for_the_next() {
    let rig = Rig::with_patience(Patience { version: LONG, message: Duration::from_millis(100) });
    let deaf = rig.client();
    for _ in 0..4 {
        deaf.send(&message(REGION_READ, &access_payload(BAR2, 0, 1 << 20, &[])));
    }
    served_in_the_end(&rig).expect_working();
}

#[test]
fn a_client_between_two_messages_keeps_its_place_however_long_that_takes() {
    const PATIENCE: Duration = Duration::from_millis(500);
    let rig = Rig::with_patience(Patience { version: PATIENCE, message: PATIENCE });
    let first = rig.client();
    first.expect_working();
    std::thread::sleep(2 * PATIENCE);
    for _ in 0..3 {
        assert_eq!(rig.stranger().request(VERSION, &version_payload("{}")).error, Some(Errno::BUSY));
    }
    first.expect_working();
}

#[test]
fn a_client_in_the_middle_of_a_message_keeps_its_place_for_its_time() {
    let rig = Rig::with_patience(Patience { version: LONG, message: LONG });
    let first = rig.client();
    let get_info = message(REGION_READ, &access_payload(CONFIG, 0, 4, &[]));
    first.send(&get_info[..20]);
    assert_eq!(rig.stranger().request(VERSION, &version_payload("{}")).error, Some(Errno::BUSY));
    first.send(&get_info[20..]);
    assert_eq!(first.receive().error, None);
}
