//! DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_REGION_IO_FDS, DEVICE_RESET, and what is not supported.

use rustix::{fs::fstat, io::Errno};

use super::peer::*;

const READ_WRITE: u32 = 3;
const MMAP: u32 = 4;
const CAPS: u32 = 8;

fn region_info(peer: &Peer, argsz: u32, index: u32) -> Reply {
    peer.request(GET_REGION_INFO, &words(&[argsz, 0, index, 0, 0, 0, 0, 0]))
}

#[test]
fn the_device_is_a_resettable_pci_function_of_nine_regions_and_five_interrupts() {
    let rig = Rig::start();
    let reply = rig.client().request(GET_INFO, &words(&[16, 0, 0, 0]));
    assert_eq!(reply.payload, words(&[16, 1 | 2, 9, 5]));
}

#[test]
fn a_plain_region_has_no_capability_and_no_descriptor() {
    let rig = Rig::start();
    let reply = region_info(&rig.client(), 32, BAR0);
    assert_eq!(reply.payload.len(), 32);
    assert_eq!((reply.u32_at(0), reply.u32_at(4), reply.u32_at(8), reply.u32_at(12)), (32, READ_WRITE, BAR0, 0));
    assert_eq!((reply.u64_at(16), reply.u64_at(24)), (BAR0_LEN, 0));
    assert!(reply.fds.is_empty());
}

#[test]
fn a_region_that_does_not_exist_has_size_0_and_no_flags() {
    let rig = Rig::start();
    let reply = region_info(&rig.client(), 32, ROM);
    assert_eq!((reply.u32_at(4), reply.u64_at(16)), (0, 0));
}

#[test]
fn a_mappable_region_asks_for_a_larger_argsz_first() {
    let rig = Rig::start();
    let reply = region_info(&rig.client(), 32, BAR2);
    assert_eq!(reply.payload.len(), 32, "never more than the client has room for");
    assert_eq!((reply.u32_at(0), reply.u32_at(4)), (64, READ_WRITE | MMAP | CAPS));
    assert_eq!(reply.u32_at(12), 32, "QEMU refuses the flag with an offset outside the structure");
    assert_eq!(reply.u64_at(16), BAR2_LEN);
    assert!(reply.fds.is_empty());
}

#[test]
fn a_mappable_region_comes_with_its_sparse_area_and_its_file() {
    let rig = Rig::start();
    let reply = region_info(&rig.client(), 64, BAR2);
    assert_eq!(reply.payload.len(), 64);
    let capability = [1u32 | 1 << 16, 0, 1, 0];
    assert_eq!(reply.payload[32..48], words(&capability));
    assert_eq!((reply.u64_at(48), reply.u64_at(56)), (0, BAR2_MMAP_LEN));
    let [fd] = &reply.fds[..] else { panic!("one descriptor, not {:?}", reply.fds) };
    assert_eq!(fstat(fd).unwrap().st_ino, fstat(&rig.device.bar2).unwrap().st_ino);
}

#[test]
fn bad_info_requests_are_refused() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(region_info(&peer, 31, BAR0).error, Some(Errno::INVAL));
    assert_eq!(region_info(&peer, 0, BAR0).error, Some(Errno::INVAL));
    assert_eq!(region_info(&peer, 32, 9).error, Some(Errno::INVAL));
    assert_eq!(region_info(&peer, 32, u32::MAX).error, Some(Errno::INVAL));
    assert_eq!(peer.request(GET_REGION_INFO, &words(&[32, 0])).error, Some(Errno::INVAL));
    assert_eq!(peer.request(GET_REGION_INFO, &[]).error, Some(Errno::INVAL));
    assert_eq!(peer.request(GET_INFO, &[]).error, Some(Errno::INVAL));
    assert_eq!(peer.request(GET_INFO, &words(&[15, 0, 0, 0])).error, Some(Errno::INVAL));
    peer.expect_working();
}

#[test]
fn no_region_has_io_descriptors() {
    let rig = Rig::start();
    let peer = rig.client();
    let reply = peer.request(GET_REGION_IO_FDS, &words(&[4096, 0, BAR0, 0]));
    assert_eq!((reply.error, &reply.payload), (None, &words(&[16, 0, BAR0, 0])));
    assert!(reply.fds.is_empty());
    for bad in [words(&[15, 0, BAR0, 0]), words(&[16, 1, BAR0, 0]), words(&[16, 0, 9, 0]), words(&[16])] {
        assert_eq!(peer.request(GET_REGION_IO_FDS, &bad).error, Some(Errno::INVAL));
    }
}

#[test]
fn reset_reaches_the_device_once() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(peer.request(RESET, &[]).error, None);
    assert_eq!(peer.request(RESET, &[0]).error, Some(Errno::INVAL));
    assert_eq!(rig.device.calls(), [Call::Connected, Call::Reset]);
}

#[test]
fn commands_that_do_not_exist_or_are_not_for_servers_are_not_supported() {
    let rig = Rig::start();
    let peer = rig.client();
    // DMA_READ, DMA_WRITE, DIRTY_PAGES, REGION_WRITE_MULTI, DEVICE_FEATURE, MIG_DATA_READ, MIG_DATA_WRITE.
    for command in [0, 11, 12, 14, 15, 16, 17, 18, 19, 255, u16::MAX] {
        assert_eq!(peer.request(command, &[0; 64]).error, Some(Errno::NOTSUP), "command {command}");
    }
    peer.expect_working();
}
