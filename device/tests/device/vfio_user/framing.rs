//! Messages that are cut up, too long, too short or left half-sent; and the end of the server.

use rustix::io::Errno;

use super::peer::*;

const MAX_MESSAGE: u32 = 16 + 16 + (1 << 20);

/// Sends bytes one by one, each as a packet of its own as far as the socket lets it.
fn dribble(peer: &Peer, bytes: &[u8]) {
    for byte in bytes.chunks(1) {
        peer.send(byte);
    }
}

#[test]
fn a_message_may_come_one_byte_at_a_time() {
    let rig = Rig::start();
    let peer = rig.client();
    dribble(&peer, &message(REGION_WRITE, &access_payload(BAR0, 0xa00, 3, &[1, 2, 3])));
    assert_eq!(peer.receive().error, None);
    dribble(&peer, &message(REGION_READ, &access_payload(BAR0, 0xa00, 3, &[])));
    assert_eq!(peer.receive().payload[16..], [1, 2, 3]);
}

#[test]
fn several_messages_may_come_at_once() {
    let rig = Rig::start();
    let peer = rig.client();
    let mut bytes = message(RESET, &[]);
    bytes.extend(message(99, &[1, 2, 3]));
    bytes.extend(message(REGION_READ, &access_payload(CONFIG, 0, 4, &[])));
    peer.send(&bytes);
    assert_eq!(peer.receive().error, None);
    assert_eq!(peer.receive().error, Some(Errno::NOTSUP));
    assert_eq!(peer.receive().payload.len(), 20);
}

#[test]
fn framing_survives_every_refusal() {
    let rig = Rig::start();
    let peer = rig.client();
    for command in 0..32 {
        for length in [0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 64, 4096] {
            let reply = peer.request(command, &vec![0; length]);
            let resets = command == RESET && length == 0;
            assert_eq!(reply.error.is_none(), resets, "command {command} with {length} bytes of nothing");
        }
    }
    peer.expect_working();
}

#[test]
fn a_size_that_cannot_be_ends_the_connection_but_not_the_server() {
    let rig = Rig::start();
    for size in [0, 1, 15, MAX_MESSAGE + 1, 1 << 31, u32::MAX] {
        let peer = rig.client();
        peer.send(&header(REGION_READ, size, 0));
        peer.expect_closed();
    }
    rig.client().expect_working();
    rig.device.wait_for(&Call::Gone, 7);
}

#[test]
fn the_longest_message_there_is_passes() {
    let rig = Rig::start();
    let peer = rig.client();
    let reply = peer.request(99, &vec![0; MAX_MESSAGE as usize - 16]);
    assert_eq!(reply.error, Some(Errno::NOTSUP));
    peer.expect_working();
}

#[test]
fn a_reply_from_the_client_ends_the_connection() {
    let rig = Rig::start();
    for kind in [1, 2, 15] {
        let peer = rig.client();
        peer.send(&message_with_flags(REGION_READ, kind, &access_payload(CONFIG, 0, 4, &[])));
        peer.expect_closed();
    }
    rig.client().expect_working();
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_message_makes_way_for_the_next() {
    let rig = Rig::start();
    let bytes = message(REGION_WRITE, &access_payload(BAR0, 0, 64, &[0xee; 64]));
    for length in [1, 8, 15, 16, 17, 31, 32, bytes.len() - 1] {
        let peer = rig.client();
        peer.send(&bytes[..length]);
    }
    rig.client().expect_working();
    rig.device.wait_for(&Call::Gone, 9);
    assert!(!rig.device.calls().iter().any(|call| matches!(call, Call::Write(..))));
}

#[test]
fn a_client_that_does_not_wait_for_its_reply_makes_way_for_the_next() {
    let rig = Rig::start();
    for _ in 0..20 {
        let peer = rig.client();
        peer.send(&message(REGION_READ, &access_payload(BAR2, 0, 1 << 20, &[])));
    }
    rig.client().expect_working();
}

#[test]
fn a_second_client_is_refused_as_busy_and_the_first_goes_on() {
    let rig = Rig::start();
    let first = rig.client();
    for _ in 0..20 {
        let second = rig.stranger();
        assert_eq!(second.request(VERSION, &version_payload("{}")).error, Some(Errno::BUSY));
        second.expect_closed();
        first.expect_working();
    }
    assert_eq!(rig.device.calls(), [Call::Connected]);
}

#[test]
fn a_silent_second_client_is_closed_and_delays_neither_the_first_nor_a_third() {
    let rig = Rig::start();
    let first = rig.client();
    let (silent, third) = (rig.stranger(), rig.stranger());
    third.send(&message(VERSION, &version_payload("{}")));
    first.expect_working();
    silent.expect_closed();
    assert_eq!(third.receive().error, Some(Errno::BUSY));
    first.expect_working();
}

#[test]
fn a_client_that_connects_as_soon_as_the_first_has_closed_is_served() {
    let rig = Rig::start();
    for _ in 0..100 {
        // The server may not even have noticed yet.
        rig.client().send(&message(REGION_READ, &access_payload(BAR2, 0, 1 << 20, &[])));
    }
    rig.client().expect_working();
}

#[test]
fn stop_ends_the_server_while_a_second_client_is_being_refused() {
    let mut rig = Rig::start();
    let (_first, second) = (rig.client(), rig.stranger());
    rig.stop.trigger();
    rig.join();
    second.expect_closed();
}

#[test]
fn stop_ends_the_server_while_it_waits_for_a_client() {
    let mut rig = Rig::start();
    rig.stop.trigger();
    rig.join();
    assert!(!rig.path().exists(), "the socket is unlinked");
}

#[test]
fn stop_ends_the_server_in_the_middle_of_a_message() {
    for length in [0, 7, 16, 20] {
        let mut rig = Rig::start();
        let peer = rig.client();
        peer.expect_working();
        peer.send(&message(REGION_WRITE, &access_payload(BAR0, 0, 64, &[0; 64]))[..length]);
        rig.stop.trigger();
        rig.join();
        peer.expect_closed();
        assert_eq!(rig.device.calls(), [Call::Connected, Call::Gone]);
    }
}

#[test]
fn stop_ends_the_server_while_a_client_takes_no_replies() {
    let mut rig = Rig::start();
    let peer = rig.client();
    peer.stream.set_nonblocking(true).unwrap();
    let request = message(REGION_READ, &access_payload(BAR2, 0, 1 << 20, &[]));
    // Until the socket is full, so that the server is, or will be, in the middle of a reply.
    while std::io::Write::write(&mut &peer.stream, &request).is_ok_and(|sent| sent == request.len()) {}
    rig.stop.trigger();
    rig.join();
}

#[test]
fn a_server_that_was_stopped_before_it_ran_ends_at_once() {
    let rig = Rig::start();
    let stop = cxl_cram_device::vfio_user::Stop::new().unwrap();
    stop.clone().trigger();
    assert!(stop.is_triggered());
    let directory = tempfile::tempdir().unwrap();
    let server = cxl_cram_device::vfio_user::Server::bind(directory.path().join("s")).unwrap();
    server.run(&*rig.device, &rig.interrupts, &stop).unwrap();
}
