//! DEVICE_GET_IRQ_INFO, DEVICE_SET_IRQS and what reaches the client.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::peer::*;

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

fn set(peer: &Peer, flags: u32, start: u32, count: u32, data: &[u8]) -> Option<Errno> {
    set_fds(peer, flags, start, count, data, &[])
}

fn set_fds(peer: &Peer, flags: u32, start: u32, count: u32, data: &[u8], fds: &[&OwnedFd]) -> Option<Errno> {
    let mut payload = words(&[20 + data.len() as u32, flags, MSIX, start, count]);
    payload.extend_from_slice(data);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    if fds.is_empty() {
        peer.request(SET_IRQS, &payload).error
    } else {
        peer.request_with_fds(SET_IRQS, &payload, &fds).error
    }
}

fn listen(peer: &Peer, vector: u32) -> OwnedFd {
    let eventfd = new_eventfd();
    assert_eq!(set_fds(peer, EVENTFD | TRIGGER, vector, 1, &[], &[&eventfd]), None);
    eventfd
}

fn armed(rig: &Rig) -> Vec<u32> {
    let vector = |call: Call| if let Call::Armed(MSIX, vector) = call { Some(vector) } else { None };
    rig.device.calls().into_iter().filter_map(vector).collect()
}

#[test]
fn an_interrupt_index_reports_its_vectors() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(peer.request(GET_IRQ_INFO, &words(&[16, 0, MSIX, 0])).payload, words(&[16, 1 | 2, MSIX, VECTORS]));
    assert_eq!(peer.request(GET_IRQ_INFO, &words(&[16, 0, 0, 0])).payload, words(&[16, 0, 0, 0]));
    for bad in [words(&[16, 0, 5, 0]), words(&[16, 0, u32::MAX, 0]), words(&[15, 0, MSIX, 0]), words(&[16]), vec![]] {
        assert_eq!(peer.request(GET_IRQ_INFO, &bad).error, Some(Errno::INVAL));
    }
}

#[test]
fn a_raised_vector_reaches_the_eventfd_that_was_set_for_it() {
    let rig = Rig::start();
    assert!(!rig.interrupts.raise(MSIX, 3), "there is no client");
    let peer = rig.client();
    assert!(!rig.interrupts.raise(MSIX, 3), "the vector is not armed");
    let eventfd = listen(&peer, 3);
    assert_eq!(armed(&rig), [3]);
    assert!(rig.interrupts.raise(MSIX, 3));
    assert!(rig.interrupts.raise(MSIX, 3));
    assert!(!rig.interrupts.raise(MSIX, 4));
    assert!(!rig.interrupts.raise(MSIX, VECTORS));
    assert!(!rig.interrupts.raise(0, 0));
    assert!(!rig.interrupts.raise(u32::MAX, u32::MAX));
    assert_eq!(edges(&eventfd), 2);
    assert_eq!(rig.interrupts.signalled(MSIX).into_iter().collect::<Vec<_>>(), [(3, 2)]);
    assert!(rig.interrupts.signalled(0).is_empty());
}

#[test]
fn sixteen_eventfds_in_one_message_go_to_sixteen_vectors() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfds: Vec<OwnedFd> = (0..16).map(|_| new_eventfd()).collect();
    let all: Vec<&OwnedFd> = eventfds.iter().collect();
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 2, 16, &[], &all), None);
    assert_eq!(armed(&rig), (2..18).collect::<Vec<_>>());
    for vector in 0..VECTORS {
        rig.interrupts.raise(MSIX, vector);
    }
    assert!(eventfds.iter().all(|eventfd| edges(eventfd) == 1));
}

#[test]
fn a_masked_vector_is_silent_and_armed_again_when_unmasked() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfd = listen(&peer, 5);
    assert_eq!(set(&peer, NONE | MASK, 0, VECTORS, &[]), None);
    assert!(!rig.interrupts.raise(MSIX, 5));
    assert_eq!(armed(&rig), [5]);
    assert_eq!(set(&peer, NONE | UNMASK, 0, VECTORS, &[]), None);
    assert_eq!(armed(&rig), [5, 5], "only the vector that has an eventfd");
    assert_eq!(set(&peer, NONE | UNMASK, 5, 1, &[]), None);
    assert_eq!(armed(&rig), [5, 5], "it was not masked");
    assert!(rig.interrupts.raise(MSIX, 5));
    assert_eq!(edges(&eventfd), 1);
}

#[test]
fn an_eventfd_set_on_a_masked_vector_is_armed_by_the_unmask() {
    let rig = Rig::start();
    let peer = rig.client();
    set(&peer, NONE | MASK, 7, 1, &[]);
    let eventfd = listen(&peer, 7);
    assert!(armed(&rig).is_empty());
    assert!(!rig.interrupts.raise(MSIX, 7));
    set(&peer, NONE | UNMASK, 7, 1, &[]);
    assert_eq!(armed(&rig), [7]);
    assert_eq!(edges(&eventfd), 0, "an edge is for the device to say again");
}

#[test]
fn booleans_choose_vectors() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfds: Vec<OwnedFd> = (0..3).map(|vector| listen(&peer, vector)).collect();
    assert_eq!(set(&peer, BOOL | MASK, 0, 3, &[1, 0, 1]), None);
    assert_eq!([0, 1, 2].map(|vector| rig.interrupts.raise(MSIX, vector)), [false, true, false]);
    assert_eq!(set(&peer, BOOL | UNMASK, 0, 3, &[0, 1, 1]), None);
    assert_eq!([0, 1, 2].map(|vector| rig.interrupts.raise(MSIX, vector)), [false, true, true]);
    assert_eq!(set(&peer, BOOL | TRIGGER, 1, 2, &[1, 0]), None);
    assert_eq!(eventfds.iter().map(edges).collect::<Vec<_>>(), [0, 3, 1]);
}

#[test]
fn a_trigger_without_data_signals_the_range() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfds: Vec<OwnedFd> = (0..3).map(|vector| listen(&peer, vector)).collect();
    assert_eq!(set(&peer, NONE | TRIGGER, 1, 2, &[]), None);
    assert_eq!(eventfds.iter().map(edges).collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn eventfds_are_taken_away_one_by_one_in_runs_or_all_at_once() {
    let rig = Rig::start();
    let peer = rig.client();
    let all = || -> Vec<OwnedFd> { (0..4).map(|vector| listen(&peer, vector)).collect() };
    let raised = || [0, 1, 2, 3].map(|vector| rig.interrupts.raise(MSIX, vector));

    let _kept = all();
    let minus_one = (-1i32).to_ne_bytes();
    assert_eq!(set(&peer, EVENTFD | TRIGGER, 1, 1, &minus_one), None, "-1");
    assert_eq!(raised(), [true, false, true, true]);

    assert_eq!(set(&peer, EVENTFD | TRIGGER, 2, 2, &[]), None, "as QEMU says it: a run without descriptors");
    assert_eq!(raised(), [true, false, false, false]);

    let _kept = all();
    assert_eq!(set(&peer, NONE | TRIGGER, 0, 0, &[]), None, "count 0");
    assert_eq!(raised(), [false; 4]);
}

#[test]
fn data_may_mix_descriptors_and_minus_one() {
    let rig = Rig::start();
    let peer = rig.client();
    let (first, third) = (new_eventfd(), new_eventfd());
    let _second = listen(&peer, 1);
    let data = words(&[0, -1i32 as u32, 0]);
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 3, &data, &[&first, &third]), None);
    assert_eq!([0, 1, 2].map(|vector| rig.interrupts.raise(MSIX, vector)), [true, false, true]);
    assert_eq!((edges(&first), edges(&third)), (1, 1));
}

#[test]
fn bad_interrupt_requests_change_nothing() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfd = listen(&peer, 0);
    let other = new_eventfd();
    let invalid = Some(Errno::INVAL);
    for flags in [
        0,
        NONE,
        TRIGGER,
        NONE | BOOL | TRIGGER,
        NONE | MASK | UNMASK,
        NONE | MASK | TRIGGER,
        NONE | 64,
        NONE | TRIGGER | 64,
        EVENTFD,
        EVENTFD | 64,
        u32::MAX,
    ] {
        assert_eq!(set(&peer, flags, 0, 1, &[]), invalid, "flags {flags:#x}");
    }
    for (start, count) in [(0, VECTORS + 1), (VECTORS, 1), (u32::MAX, 1), (1, u32::MAX), (0, u32::MAX), (1, 0)] {
        assert_eq!(set(&peer, NONE | TRIGGER, start, count, &[]), invalid, "{start}+{count}");
        assert_eq!(set(&peer, NONE | MASK, start, count, &[]), invalid, "{start}+{count}");
        assert_eq!(set(&peer, EVENTFD | TRIGGER, start, count, &[]), invalid, "{start}+{count}");
    }
    assert_eq!(set(&peer, NONE | MASK, 0, 0, &[]), invalid, "mask nothing");
    assert_eq!(set(&peer, NONE | MASK, 0, 1, &[1]), invalid, "data with no data");
    assert_eq!(set(&peer, BOOL | MASK, 0, 2, &[1]), invalid, "too few booleans");
    assert_eq!(set(&peer, BOOL | MASK, 0, 1, &[1, 1]), invalid, "too many booleans");
    assert_eq!(set(&peer, BOOL | MASK, 0, u32::MAX, &[1]), invalid);
    assert_eq!(set(&peer, EVENTFD | TRIGGER, 0, 1, &[0xff; 3]), invalid, "half an entry");
    assert_eq!(set(&peer, EVENTFD | TRIGGER, 0, 2, &[0xff; 4]), invalid, "too few entries");
    assert_eq!(set(&peer, EVENTFD | TRIGGER, 0, 1, &[0; 4]), invalid, "an entry without its descriptor");
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 2, &[], &[&other]), invalid, "too few descriptors");
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 1, &[], &[&other, &other]), invalid, "too many descriptors");
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 1, &[0xff; 4], &[&other]), invalid, "-1 and a descriptor");
    assert_eq!(set_fds(&peer, NONE | MASK, 0, 1, &[], &[&other]), invalid, "a descriptor that was not asked for");
    assert_eq!(set_fds(&peer, EVENTFD | MASK, 0, 1, &[], &[&other]), Some(Errno::NOTSUP));
    assert_eq!(set_fds(&peer, EVENTFD | UNMASK, 0, 1, &[], &[&other]), Some(Errno::NOTSUP));
    for payload in [words(&[20, NONE | MASK, 5, 0, 1]), words(&[19, NONE | MASK, MSIX, 0, 1]), words(&[20]), vec![]] {
        assert_eq!(peer.request(SET_IRQS, &payload).error, invalid);
    }
    assert!(rig.interrupts.raise(MSIX, 0));
    assert_eq!((edges(&eventfd), edges(&other)), (1, 0));
    assert_eq!(armed(&rig), [0]);
}

#[test]
fn only_eventfds_are_taken_because_anything_else_could_block_the_device() {
    let rig = Rig::start();
    let peer = rig.client();
    let (_read_end, pipe) = rustix::pipe::pipe().unwrap();
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let (socket, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
    for fd in [&pipe, &file, &OwnedFd::from(socket)] {
        assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 1, &[], &[fd]), Some(Errno::INVAL));
    }
    assert!(!rig.interrupts.raise(MSIX, 0));
}

#[test]
fn a_full_blocking_eventfd_does_not_block_the_device() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert_eq!(set_fds(&peer, EVENTFD | TRIGGER, 0, 1, &[], &[&eventfd]), None);
    assert!(rig.interrupts.raise(MSIX, 0), "an edge is there to be seen");
}

#[test]
fn the_interrupts_of_a_client_end_with_it() {
    let rig = Rig::start();
    let peer = rig.client();
    let eventfd = listen(&peer, 0);
    set(&peer, NONE | MASK, 1, 1, &[]);
    drop(peer);
    rig.device.wait_for(&Call::Gone, 1);
    assert!(!rig.interrupts.raise(MSIX, 0));
    assert_eq!(edges(&eventfd), 0);
    let next = rig.client();
    assert!(!rig.interrupts.raise(MSIX, 0));
    let eventfd = listen(&next, 1);
    assert!(rig.interrupts.raise(MSIX, 1), "masks are gone too");
    assert_eq!(edges(&eventfd), 1);
}
