//! The adaptive medium: short of media, it makes room without anything the guest does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use cxl_cram_device::{
    hdm::{
        media::{Crossing, Media, MediaConfig, MediaEvent, Threshold, Watermarks},
        recompressor::{Recompressor, RecompressorConfig},
    },
    store::{Block, Codec, Recompressed},
};

const MIB: u64 = 1 << 20;
/// A test that waits this long has failed; none waits for time to pass.
const PATIENCE: Duration = Duration::from_secs(120);

/// Letters without words: lz4 finds nothing in them, zstd makes half of them.
fn letters(seed: u64) -> Block {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b'a' + (x >> 60) as u8
    })
}

fn medium(physical: u64) -> (Arc<Media>, Receiver<MediaEvent>) {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: 16 * MIB, physical, codec: Codec::Adaptive(1), watermarks };
    let media = Media::new(&config).unwrap();
    let (told, heard) = channel();
    media.add_listener(move |event| told.send(event).unwrap());
    (media, heard)
}

fn start(media: &Arc<Media>) -> Recompressor {
    Recompressor::start(media, &RecompressorConfig { cpu_percent: 100, pass_interval: Duration::ZERO }).unwrap()
}

fn fill(media: &Media, blocks: u64) {
    (0..blocks).for_each(|block| media.store(block, &letters(block)));
}

fn verify(media: &Media, blocks: u64) {
    for block in 0..blocks {
        let mut out = [0; 4096];
        media.load(block, &mut out);
        assert!(out == letters(block), "block {block}");
    }
}

#[test]
fn a_medium_that_is_short_makes_room_and_reports_the_high_crossing() {
    let (media, events) = medium(2 * MIB);
    fill(&media, 470);
    assert_eq!(events.try_recv(), Ok(MediaEvent::Crossed(Crossing::Low)));
    let before = media.occupancy_now();
    assert!(before.blocked);
    let recompressor = start(&media);
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::Crossed(Crossing::High)));
    drop(recompressor);
    let after = media.occupancy_now();
    assert!(!after.blocked && after.usage.free() > after.high_watermark, "{after:?}");
    assert!(after.recompressed.blocks > 0);
    assert!(after.usage.raw_blocks > 0, "it goes on although media is no longer short: {after:?}");
    assert_eq!(after.recompressed.saved, before.usage.data - after.usage.data);
    verify(&media, 470);
}

#[test]
fn an_overfull_medium_makes_room_with_no_frame_to_begin_with() {
    let (media, events) = medium(2 * MIB);
    fill(&media, 512);
    assert_eq!(media.occupancy_now().usage.free(), 0);
    let _recompressor = start(&media);
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::Crossed(Crossing::Low)));
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::Crossed(Crossing::High)));
    assert_eq!(media.occupancy_now().overflows, 0);
    verify(&media, 512);
}

#[test]
fn nothing_is_recompressed_while_there_is_room_and_what_makes_media_short_wakes_it() {
    let (media, events) = medium(4 * MIB);
    let _recompressor = start(&media);
    fill(&media, 470);
    assert_eq!(media.occupancy_now().recompressed, Recompressed::default());
    media.set_physical(2 * MIB).unwrap();
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::Crossed(Crossing::Low)));
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::Crossed(Crossing::High)));
    verify(&media, 470);
}

#[test]
fn the_thread_stops_however_long_it_would_have_rested() {
    let (media, events) = medium(2 * MIB);
    fill(&media, 470);
    let hour = Duration::from_secs(3600);
    drop(Recompressor::start(&media, &RecompressorConfig { cpu_percent: 1, pass_interval: hour }).unwrap());
    drop(events);
    assert_eq!(Arc::strong_count(&media), 1, "nothing else keeps the medium");
}
