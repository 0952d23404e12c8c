//! DMA_MAP and DMA_UNMAP.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::peer::*;

const READ_WRITE: u32 = 3;
const DIRTY_BITMAP: u32 = 1;
const ALL: u32 = 2;

fn map_payload(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut payload = words(&[32, flags]);
    payload.extend([offset, address, size].iter().flat_map(|value| value.to_ne_bytes()));
    payload
}

fn unmap_payload(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let mut payload = words(&[24, flags]);
    payload.extend([address, size].iter().flat_map(|value| value.to_ne_bytes()));
    payload
}

fn map(peer: &Peer, address: u64, size: u64) -> Option<Errno> {
    peer.request(DMA_MAP, &map_payload(READ_WRITE, 0, address, size)).error
}

/// Bytes unmapped.
fn unmap(peer: &Peer, flags: u32, address: u64, size: u64) -> Result<u64, Errno> {
    let reply = peer.request(DMA_UNMAP, &unmap_payload(flags, address, size));
    match reply.error {
        None => Ok(reply.u64_at(16)),
        Some(error) => Err(error),
    }
}

#[test]
fn memory_is_mapped_with_and_without_a_file_and_unmapped() {
    let rig = Rig::start();
    let peer = rig.client();
    let file = tempfile::tempfile().unwrap();
    let reply = peer.request_with_fds(DMA_MAP, &map_payload(READ_WRITE, 0, 0, 0xa0000), &[file.as_fd()]);
    assert_eq!((reply.error, reply.payload.len()), (None, 0));
    assert_eq!(map(&peer, 0x10_0000, 0x1000), None);
    let reply = peer.request(DMA_UNMAP, &unmap_payload(0, 0, 0xa0000));
    assert_eq!(reply.payload, unmap_payload(0, 0, 0xa0000));
    assert_eq!(unmap(&peer, 0, 0x10_0000, 0x1000), Ok(0x1000));
}

#[test]
fn mappings_do_not_overlap() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(map(&peer, 0x2000, 0x2000), None);
    for (address, size) in [(0x2000, 0x2000), (0x1000, 0x1001), (0x3fff, 1), (0x1000, 0x4000), (0x3000, 0x800)] {
        assert_eq!(map(&peer, address, size), Some(Errno::EXIST), "{address:#x}+{size:#x}");
    }
    assert_eq!(map(&peer, 0x1000, 0x1000), None);
    assert_eq!(map(&peer, 0x4000, 0x1000), None);
}

#[test]
fn an_unmap_takes_whole_mappings_and_only_what_is_there() {
    let rig = Rig::start();
    let peer = rig.client();
    map(&peer, 0x1000, 0x1000);
    map(&peer, 0x2000, 0x1000);
    assert_eq!(unmap(&peer, 0, 0x1000, 0x1800), Err(Errno::INVAL), "cuts the second");
    assert_eq!(unmap(&peer, 0, 0x1800, 0x1800), Err(Errno::INVAL), "cuts the first");
    assert_eq!(unmap(&peer, 0, 0x1100, 0x100), Err(Errno::INVAL), "inside the first");
    assert_eq!(unmap(&peer, 0, 0x5000, 0x1000), Err(Errno::NOENT));
    assert_eq!(unmap(&peer, 0, 0, 0), Err(Errno::NOENT));
    assert_eq!(unmap(&peer, 0, u64::MAX, 2), Err(Errno::INVAL));
    assert_eq!(unmap(&peer, 0, 0x1000, 0x2000), Ok(0x2000));
    assert_eq!(unmap(&peer, 0, 0x1000, 0x2000), Err(Errno::NOENT));
}

#[test]
fn unmap_all_forgets_everything() {
    let rig = Rig::start();
    let peer = rig.client();
    map(&peer, 0x1000, 0x1000);
    map(&peer, 0x8000, 0x3000);
    assert_eq!(unmap(&peer, ALL, 0, 1), Err(Errno::INVAL));
    assert_eq!(unmap(&peer, ALL, 0, 0), Ok(0x4000));
    assert_eq!(unmap(&peer, 0, 0x1000, 0x1000), Err(Errno::NOENT));
    assert_eq!(unmap(&peer, ALL, 0, 0), Ok(0));
}

#[test]
fn bad_maps_are_refused() {
    let rig = Rig::start();
    let peer = rig.client();
    for payload in [
        map_payload(READ_WRITE, 0, 0, 0),
        map_payload(READ_WRITE, 0, u64::MAX, 1),
        map_payload(READ_WRITE, 0, 1, u64::MAX),
        map_payload(READ_WRITE, u64::MAX, 0, 0x1000),
        map_payload(0, 0, 0, 0x1000),
        map_payload(4, 0, 0, 0x1000),
        map_payload(u32::MAX, 0, 0, 0x1000),
        words(&[31, READ_WRITE, 0, 0, 0, 0, 0x1000, 0]),
        words(&[32, READ_WRITE]),
        vec![],
    ] {
        assert_eq!(peer.request(DMA_MAP, &payload).error, Some(Errno::INVAL), "{payload:?}");
    }
    assert_eq!(unmap(&peer, DIRTY_BITMAP, 0, 0x1000), Err(Errno::NOTSUP));
    assert_eq!(unmap(&peer, 8, 0, 0x1000), Err(Errno::INVAL));
    assert_eq!(peer.request(DMA_UNMAP, &words(&[23, 0, 0, 0, 0x1000, 0])).error, Some(Errno::INVAL));
    assert_eq!(peer.request(DMA_UNMAP, &[]).error, Some(Errno::INVAL));
    let file = tempfile::tempfile().unwrap();
    let two = [file.as_fd(), file.as_fd()];
    let reply = peer.request_with_fds(DMA_MAP, &map_payload(READ_WRITE, 0, 0, 0x1000), &two);
    assert_eq!(reply.error, Some(Errno::INVAL), "one mapping has one file");
    assert_eq!(map(&peer, 0, 0x1000), None, "nothing was kept of the refused");
}

#[test]
fn the_table_of_mappings_is_bounded() {
    let rig = Rig::start();
    let peer = rig.client();
    for page in 0..65535 {
        peer.send(&message_with_flags(DMA_MAP, NO_REPLY, &map_payload(READ_WRITE, 0, page * 0x1000, 0x1000)));
    }
    assert_eq!(map(&peer, 65535 * 0x1000, 0x1000), Some(Errno::NOSPC));
    assert_eq!(unmap(&peer, 0, 0, 0x1000), Ok(0x1000));
    assert_eq!(map(&peer, 65535 * 0x1000, 0x1000), None);
}

#[test]
fn the_next_client_begins_with_no_mappings() {
    let rig = Rig::start();
    let peer = rig.client();
    map(&peer, 0x1000, 0x1000);
    drop(peer);
    let next = rig.client();
    assert_eq!(unmap(&next, 0, 0x1000, 0x1000), Err(Errno::NOENT));
    assert_eq!(map(&next, 0x1000, 0x1000), None);
}
