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
        media::{Media, MediaConfig, MediaEvent, Threshold, Watermarks},
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

fn medium() -> (Arc<Media>, Receiver<MediaEvent>) {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: 16 * MIB, physical: 2 * MIB, codec: Codec::Adaptive(1), watermarks };
    let media = Media::new(&config).unwrap();
    let (told, heard) = channel();
    media.add_listener(Box::new(move |event| told.send(event).unwrap()));
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
fn a_medium_that_is_short_makes_room_and_tells_the_high_crossing_by_itself() {
    let (media, events) = medium();
    fill(&media, 470);
    assert_eq!(events.try_recv(), Ok(MediaEvent::LowCrossing));
    let before = media.occupancy_now();
    assert!(before.blocked);
    let _recompressor = start(&media);
    assert_eq!(events.recv_timeout(PATIENCE), Ok(MediaEvent::HighCrossing));
    let after = media.occupancy_now();
    assert!(!after.blocked && after.usage.free() > after.high_watermark, "{after:?}");
    assert!(after.recompressed.blocks > 0);
    assert_eq!(after.recompressed.saved, before.usage.data - after.usage.data);
    verify(&media, 470);
}

#[test]
fn stores_that_make_media_short_wake_the_recompressor() {
    let (media, events) = medium();
    let _recompressor = start(&media);
    fill(&media, 100);
    assert_eq!(media.occupancy_now().recompressed, Recompressed::default(), "there was room all the time");
    // More raw blocks than there are frames: they fit only because others are recompressed meanwhile, and each low
    // crossing is followed by a high one.
    for round in 0..3 {
        media.zero(0..16 * MIB).unwrap();
        fill(&media, 480);
        let crossings: Vec<_> = std::iter::from_fn(|| {
            let event =
                if media.occupancy_now().blocked { events.recv_timeout(PATIENCE).ok() } else { events.try_recv().ok() };
            event.filter(|event| !matches!(event, MediaEvent::Overflow { .. }))
        })
        .collect();
        for pair in crossings.chunks(2) {
            assert_eq!(pair, [MediaEvent::LowCrossing, MediaEvent::HighCrossing], "round {round}");
        }
        verify(&media, 480);
    }
    assert!(media.occupancy_now().recompressed.blocks > 0);
}

#[test]
fn a_recompressor_that_can_do_nothing_for_a_full_medium_still_stops() {
    let (media, events) = medium();
    let recompressor = start(&media);
    // Zeros hold no media; what shrinks media below what is used keeps it short.
    fill(&media, 8);
    media.set_watermarks(Watermarks { low: Threshold::Bytes(MIB), high: Threshold::Bytes(2 * MIB - 4096) }).unwrap();
    drop(recompressor);
    drop(events);
    assert_eq!(Arc::strong_count(&media), 1);
}
