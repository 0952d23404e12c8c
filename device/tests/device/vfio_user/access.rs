//! REGION_READ and REGION_WRITE.

use rustix::io::Errno;

use super::peer::*;

const MIB: u32 = 1 << 20;

#[test]
fn what_is_written_is_read_back() {
    let rig = Rig::start();
    let peer = rig.client();
    let reply = peer.write(BAR0, 0xa03, &[1, 2, 3, 4, 5]);
    assert_eq!((reply.error, reply.payload), (None, access_payload(BAR0, 0xa03, 5, &[])));
    let reply = peer.read(BAR0, 0xa02, 7);
    assert_eq!(reply.payload, access_payload(BAR0, 0xa02, 7, &[0, 1, 2, 3, 4, 5, 0]));
}

#[test]
fn the_longest_transfer_is_one_mebibyte() {
    let rig = Rig::start();
    let peer = rig.client();
    let data: Vec<u8> = (0..MIB).map(|i| (i % 251) as u8).collect();
    assert_eq!(peer.write(BAR2, 0x1000, &data).error, None);
    assert_eq!(peer.read(BAR2, 0x1000, MIB).payload[16..], data);
    assert_eq!(peer.read(BAR2, 0x1000, MIB + 1).error, Some(Errno::INVAL));
    peer.expect_working();
}

#[test]
fn accesses_outside_a_region_are_refused() {
    let rig = Rig::start();
    let peer = rig.client();
    for (region, offset, count) in [
        (BAR0, BAR0_LEN, 1),
        (BAR0, BAR0_LEN - 3, 4),
        (BAR0, u64::MAX, 1),
        (BAR0, u64::MAX - 3, 4),
        (BAR0, 1 << 63, 8),
        (ROM, 0, 1),
        (SEALED, 0, 4),
        (9, 0, 4),
        (u32::MAX, 0, 4),
    ] {
        let data = vec![0xee; count as usize];
        assert_eq!(peer.read(region, offset, count).error, Some(Errno::INVAL), "{region} {offset:#x}");
        assert_eq!(peer.write(region, offset, &data).error, Some(Errno::INVAL), "{region} {offset:#x}");
    }
    assert_eq!(rig.device.calls(), [Call::Connected]);
    assert_eq!(peer.read(BAR0, BAR0_LEN - 4, 4).error, None, "the last bytes are inside");
}

#[test]
fn a_read_of_four_gibibytes_allocates_nothing_and_is_refused() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(peer.read(BAR2, 0, u32::MAX).error, Some(Errno::INVAL));
    assert_eq!(peer.read(BAR2, 0, u32::MAX - 15).error, Some(Errno::INVAL));
    peer.expect_working();
}

#[test]
fn a_count_that_is_not_the_length_of_the_data_is_refused() {
    let rig = Rig::start();
    let peer = rig.client();
    for payload in [
        access_payload(BAR0, 0, 8, &[0; 4]),
        access_payload(BAR0, 0, 2, &[0; 4]),
        access_payload(BAR0, 0, MIB, &[0; 4]),
        access_payload(BAR0, 0, 0, &[0; 4]),
        access_payload(BAR0, 0, 0, &[]),
        access_payload(BAR0, 0, 4, &[]),
        vec![],
        vec![0; 15],
    ] {
        assert_eq!(peer.request(REGION_WRITE, &payload).error, Some(Errno::INVAL), "{payload:?}");
    }
    for payload in [access_payload(BAR0, 0, 4, &[0; 4]), access_payload(BAR0, 0, 0, &[]), vec![], vec![0; 15]] {
        assert_eq!(peer.request(REGION_READ, &payload).error, Some(Errno::INVAL), "{payload:?}");
    }
    assert_eq!(rig.device.calls(), [Call::Connected]);
}

#[test]
fn the_errno_of_the_device_comes_back() {
    let rig = Rig::start();
    let peer = rig.client();
    assert_eq!(peer.read(BAR0, FAILING, 4).error, Some(Errno::IO));
    assert_eq!(peer.write(BAR0, FAILING, &[0; 4]).error, Some(Errno::IO));
    peer.expect_working();
}

#[test]
fn a_posted_write_is_carried_out_and_not_answered() {
    let rig = Rig::start();
    let peer = rig.client();
    peer.send(&message_with_flags(REGION_WRITE, NO_REPLY, &access_payload(BAR0, 0xa00, 2, &[7, 8])));
    peer.send(&message_with_flags(REGION_WRITE, NO_REPLY, &access_payload(BAR0, BAR0_LEN, 2, &[7, 8])));
    peer.send(&message_with_flags(REGION_WRITE, NO_REPLY, &access_payload(BAR0, FAILING, 2, &[7, 8])));
    peer.send(&message_with_flags(99, NO_REPLY, &[]));
    let reply = peer.read(BAR0, 0xa00, 2);
    assert_eq!((reply.command, &reply.payload[16..]), (REGION_READ, &[7, 8][..]));
}
