//! File descriptors a client sends: none may stay behind. Alone in its process, because it counts all there are.
#![allow(clippy::unwrap_used, reason = "tests, and the helpers only tests call")]

#[path = "device/vfio_user/peer.rs"]
#[allow(dead_code, reason = "shared with the other tests of the wire")]
mod peer;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use peer::*;
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Descriptors this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sends every byte of a message with a full load of descriptors.
fn flood(peer: &Peer, message: &[u8], fds: &[BorrowedFd<'_>]) {
    for byte in message.chunks(1) {
        peer.send_with_fds(byte, fds);
    }
}

#[test]
fn descriptors_do_not_stay_behind_whatever_message_brought_them() {
    let rig = Rig::start();
    let eventfd: OwnedFd = new_eventfd();
    let many = |count: usize| vec![eventfd.as_fd(); count];
    {
        let peer = rig.client();
        peer.expect_working();
        let before = open_descriptors();

        let read = access_payload(CONFIG, 0, 4, &[]);
        for (count, expected) in [(1, None), (16, None), (17, Some(Errno::INVAL)), (253, Some(Errno::INVAL))] {
            assert_eq!(peer.request_with_fds(REGION_READ, &read, &many(count)).error, expected, "{count} descriptors");
            assert_eq!(open_descriptors(), before, "{count} descriptors");
        }
        for command in [DMA_MAP, DMA_UNMAP, GET_INFO, SET_IRQS, REGION_WRITE, 99] {
            for count in [1, 2, 16, 17, 100] {
                assert!(peer.request_with_fds(command, &[0; 20], &many(count)).error.is_some());
            }
            assert_eq!(open_descriptors(), before, "command {command}");
        }
        let map = words(&[32, 3, 0, 0, 0, 0, 0x1000, 0]);
        assert_eq!(peer.request_with_fds(DMA_MAP, &map, &many(1)).error, None);
        assert_eq!(open_descriptors(), before, "a mapping keeps no descriptor");

        // When the process may open no more, the kernel drops what it cannot deliver.
        let limits = getrlimit(Resource::Nofile);
        let next_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        setrlimit(Resource::Nofile, Rlimit { current: Some(next_free as u64), ..limits }).unwrap();
        let starved = peer.request_with_fds(REGION_READ, &read, &many(1)).error;
        setrlimit(Resource::Nofile, limits).unwrap();
        assert_eq!(starved, Some(Errno::INVAL), "a descriptor that was lost is not passed over");
        peer.expect_working();

        // Sixteen with every byte: the limit is on the message, however it is cut up.
        flood(&peer, &message(REGION_READ, &read), &many(16));
        assert_eq!(peer.receive().error, Some(Errno::INVAL));
        assert_eq!(open_descriptors(), before);

        // The descriptors of one message are not those of the next.
        let set = words(&[20, 4 | 32, MSIX, 0, 1]);
        assert_eq!(peer.request_with_fds(SET_IRQS, &set, &many(1)).error, None);
        assert_eq!(open_descriptors(), before + 1, "an eventfd that is set is kept");
        assert_eq!(peer.request_with_fds(SET_IRQS, &set, &many(1)).error, None);
        assert_eq!(open_descriptors(), before + 1, "and closed when another takes its place");
        assert_eq!(peer.request(SET_IRQS, &words(&[20, 1 | 32, MSIX, 0, 0])).error, None);
        assert_eq!(open_descriptors(), before);
    }
    rig.device.wait_for(&Call::Gone, 1);

    // What a client leaves behind goes with it: eventfds, and a message half sent with descriptors beside it. Counted
    // while a client is served, because by then the connection before it is closed for certain.
    let with_a_client = || {
        let peer = rig.client();
        peer.expect_working();
        open_descriptors()
    };
    let before = with_a_client();
    for round in 3..20 {
        let peer = rig.client();
        let all = words(&[20, 4 | 32, MSIX, 0, 16]);
        assert_eq!(peer.request_with_fds(SET_IRQS, &all, &many(16)).error, None);
        peer.send_with_fds(&message(SET_IRQS, &all)[..17], &many(16));
        drop(peer);
        rig.device.wait_for(&Call::Gone, round);
    }
    assert_eq!(with_a_client(), before);
}
