//! Random bytes and mutated messages. Invariant: the server survives and serves the next client.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::{AsFd, OwnedFd},
};

use proptest::{collection::vec, prelude::*};

use super::peer::*;

/// One message as a client should send it, of every kind.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let fixed = vec![
        message(VERSION, &version_payload("{}")),
        message(DMA_MAP, &words(&[32, 3, 0, 0, 0x1000, 0, 0x1000, 0])),
        message(DMA_UNMAP, &words(&[24, 0, 0x1000, 0, 0x1000, 0])),
        message(GET_INFO, &words(&[16, 0, 0, 0])),
        message(GET_REGION_INFO, &words(&[64, 0, BAR2, 0, 0, 0, 0, 0])),
        message(GET_REGION_IO_FDS, &words(&[16, 0, BAR0, 0])),
        message(GET_IRQ_INFO, &words(&[16, 0, MSIX, 0])),
        message(SET_IRQS, &words(&[20, 1 | 8, MSIX, 0, VECTORS])),
        message(SET_IRQS, &words(&[20, 1 | 16, MSIX, 0, VECTORS])),
        message(SET_IRQS, &words(&[20, 4 | 32, MSIX, 0, 1])),
        message(REGION_READ, &access_payload(BAR0, 0x900, 64, &[])),
        message(REGION_WRITE, &access_payload(BAR0, 0x900, 8, &[0xc3; 8])),
        message(RESET, &[]),
    ];
    prop::sample::select(fixed)
}

/// What is done to it.
#[derive(Clone, Debug)]
enum Mutation {
    None,
    Flip(prop::sample::Index, u8),
    /// A 32-bit field set to a number that is at a limit somewhere.
    Word(prop::sample::Index, u32),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    /// Cut or grown, with the size in the header still right.
    Resize(u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let limits =
        vec![0, 1, 2, 15, 16, 31, 32, 0x1000, 0x1001, 1 << 20, (1 << 20) + 33, 1 << 31, u32::MAX - 15, u32::MAX];
    prop_oneof![
        3 => Just(Mutation::None),
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        3 => (any::<prop::sample::Index>(), prop::sample::select(limits)).prop_map(|(at, word)| Mutation::Word(at, word)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Cut),
        1 => vec(any::<u8>(), 1..40).prop_map(Mutation::Append),
        2 => any::<u8>().prop_map(Mutation::Resize),
    ]
}

fn mutated(mut bytes: Vec<u8>, mutation: Mutation) -> Vec<u8> {
    match mutation {
        Mutation::None => {}
        Mutation::Flip(at, mask) => {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        Mutation::Word(at, word) => {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Mutation::Append(tail) => bytes.extend(tail),
        Mutation::Resize(length) => {
            bytes.resize(16 + usize::from(length), 0);
            let size = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
        }
    }
    bytes
}

/// What one client does: bytes with descriptors beside them, message by message.
fn conversation() -> impl Strategy<Value = Vec<(Vec<u8>, usize)>> {
    let random = vec(any::<u8>(), 0..200);
    let piece = prop_oneof![
        9 => (valid(), mutation()).prop_map(|(bytes, mutation)| mutated(bytes, mutation)),
        1 => random,
    ];
    let descriptors = prop_oneof![4 => Just(0usize), 1 => 1..20usize];
    vec((piece, descriptors), 1..20)
}

/// Says all of it, whatever the server thinks of it, and hears the server out.
fn converse(peer: &Peer, conversation: &[(Vec<u8>, usize)], eventfd: &OwnedFd) {
    let reader = peer.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        // Replies are taken as they come, so that neither side waits for the other for ever.
        scope.spawn(move || {
            let mut buffer = [0; 4096];
            while (&reader).read(&mut buffer).is_ok_and(|got| got > 0) {}
        });
        for (bytes, descriptors) in conversation {
            if bytes.is_empty() {
                continue;
            }
            // The server may have closed the connection by now: that is an answer too.
            let sent = if *descriptors == 0 {
                (&peer.stream).write_all(bytes).is_ok()
            } else {
                peer.try_send_with_fds(bytes, &vec![eventfd.as_fd(); *descriptors])
            };
            if !sent {
                break;
            }
        }
        let _ = peer.stream.shutdown(Shutdown::Write);
    });
}

#[test]
fn whatever_a_client_sends_the_next_client_is_served() {
    let rig = Rig::start();
    let eventfd = new_eventfd();
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(conversation in conversation(), negotiated in prop::bool::weighted(0.8))| {
        let peer = if negotiated { rig.client() } else { rig.stranger() };
        converse(&peer, &conversation, &eventfd);
        drop(peer);
        let next = rig.client();
        prop_assert_eq!(next.read(BAR0, FAILING, 4).error, Some(rustix::io::Errno::IO));
        prop_assert_eq!(next.request(GET_INFO, &words(&[16, 0, 0, 0])).payload, words(&[16, 3, 9, 5]));
        prop_assert_eq!(next.request(DMA_MAP, &words(&[32, 3, 0, 0, 0, 0, 0x1000, 0])).error, None);
    });
    // The device was notified of every client that was accepted, and of its end.
    let calls = rig.device.calls();
    let count = |call: &Call| calls.iter().filter(|made| *made == call).count();
    assert!(count(&Call::Connected) >= 512);
    assert!(count(&Call::Connected) - count(&Call::Gone) <= 1);
}
