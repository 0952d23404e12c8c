//! The trapped window: bytes of any length and alignment, counted at once.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, thread};

use cxl_cram_device::{
    hdm::{
        Window,
        media::{Media, MediaConfig, POISON_PATTERN, Threshold, Watermarks},
        trap::TrapWindow,
    },
    store::Codec,
};
use proptest::prelude::*;

const CAPACITY: u64 = 1 << 20;

fn window() -> (Arc<Media>, Arc<TrapWindow>) {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: CAPACITY, physical: CAPACITY, codec: Codec::Lz4, watermarks };
    let media = Media::new(&config).unwrap();
    let window = TrapWindow::new(Arc::clone(&media));
    (media, window)
}

#[test]
fn occupancy_counts_a_store_without_any_flush() {
    let (media, window) = window();
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    window.write(4096, &noise);
    assert!(media.occupancy_now().usage.used >= 4096);
    assert!(window.mmap_fd().is_none());
    assert_eq!(window.resident().bytes, 0);
}

#[test]
fn stores_of_many_threads_to_one_block_are_all_kept() {
    let (_media, window) = window();
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            let window = &window;
            scope.spawn(move || (0..512).for_each(|n| window.write(n * 8 + u64::from(thread), &[thread + 1])));
        }
    });
    let mut block = [0; 4096];
    window.read(0, &mut block);
    assert!(block.chunks_exact(8).all(|word| word == [1, 2, 3, 4, 5, 6, 7, 8]));
}

#[test]
fn a_poisoned_line_reads_as_the_pattern_and_a_store_heals_it() {
    let (media, window) = window();
    media.inject_poison(64).unwrap();
    let mut word = [0; 8];
    window.read(64, &mut word);
    assert_eq!(u64::from_le_bytes(word), POISON_PATTERN);
    window.write(64, &[0; 64]);
    assert_eq!(media.poison_list(0..CAPACITY), []);
}

#[test]
fn past_the_capacity_loads_are_zero_and_stores_are_dropped() {
    let (_media, window) = window();
    window.write(CAPACITY - 4, &[1; 8]);
    let mut data = [9; 8];
    window.read(CAPACITY - 4, &mut data);
    assert_eq!(data, [1, 1, 1, 1, 0, 0, 0, 0]);
    window.write(u64::MAX, &[1]);
    window.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
}

proptest! {
    #[test]
    fn any_length_and_alignment_agrees_with_plain_memory(
        writes in prop::collection::vec((0..5 * 4096_usize, 1..2 * 4096_usize, any::<u8>()), 1..30)
    ) {
        let (_media, window) = window();
        let mut plain = vec![0_u8; 8 * 4096];
        for (at, length, byte) in writes {
            window.write(at as u64, &vec![byte; length]);
            plain[at..at + length].fill(byte);
            let mut seen = vec![0; length + 200];
            window.read(at as u64, &mut seen);
            prop_assert_eq!(&seen[..], &plain[at..at + length + 200]);
        }
    }
}
