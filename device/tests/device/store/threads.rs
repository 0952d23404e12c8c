//! Many threads on one store: what is read is always one whole version of the block, and the counters add up.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cxl_cram_device::store::{BLOCK_SIZE, Block, Codec, Recompressed, Store, StoreError};

use super::data::{Random, filled, letters, noisy, read, store, text};

const BLOCKS: u64 = 1300;
const THREADS: u64 = 4;
const STEPS: u64 = 4000;
/// Frames of media, least and most, for what the mixture of [`work`] keeps alive: some 250 blocks. Far less than they need, so that
/// writes are refused by the thousand, whatever the schedule: a store that just about holds them is full in some runs only.
const TIGHT: (u64, u64) = (70, 140);
/// Rounds of a race of a few instructions: enough that it is lost in nearly every run of a store that has it.
const ROUNDS: u64 = 5000;

/// A version of a block that says which it is.
fn version(block: u64, seed: u64) -> Block {
    if seed.is_multiple_of(8) {
        return filled(block << 32 | seed);
    }
    let mut data = match seed % 8 {
        1 | 2 => text(seed),
        3 => letters(seed),
        _ => noisy(seed, (seed % 4600).min(BLOCK_SIZE as u64) as usize),
    };
    data[..8].copy_from_slice(&block.to_ne_bytes());
    data[8..16].copy_from_slice(&seed.to_ne_bytes());
    data
}

/// Panics unless `data` is zeros or a version of `block`.
fn verify(block: u64, data: &Block) {
    if *data == [0; BLOCK_SIZE] {
        return;
    }
    let words = data.as_chunks().0;
    let (first, second) = (u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1]));
    let (number, seed) = if first == second { (first >> 32, first & 0xffff_ffff) } else { (first, second) };
    assert_eq!(number, block, "these are another block's contents");
    assert!(*data == version(block, seed), "block {block} mixes versions");
}

/// One thread's share of a mixture of everything, on blocks that all threads share. Returns refused writes.
fn work(store: &Store, seed: u64, frames: RangeInclusive<u64>) -> u64 {
    let mut random = Random::new(seed);
    let mut refused = 0;
    for _ in 0..STEPS {
        let block = random.below(BLOCKS);
        match random.below(100) {
            0 => store.trim(block..(block + random.below(600)).min(BLOCKS)).unwrap(),
            1 => {
                let frames = frames.start() + random.below(frames.end() - frames.start() + 1);
                store.set_physical(frames * BLOCK_SIZE as u64);
            }
            2..40 => verify(block, &read(store, block)),
            _ => match store.write(block, &version(block, random.below(1 << 32))) {
                Ok(()) => {}
                Err(StoreError::Full { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            },
        }
    }
    refused
}

/// Pass after pass while the others work, and two whole ones after them, the first of which makes fresh blocks cold: on a busy machine
/// the others may be done before this begins.
fn recompress(store: &Store, done: &AtomicU64) {
    let mut after = 0;
    while after < 2 {
        after += u64::from(done.load(Relaxed) == THREADS);
        let mut from = Some(0);
        while let Some(block) = from {
            from = store.recompress(block, 8).next;
        }
    }
}

/// Runs `work` in [`THREADS`] threads, and recompression in two more if the codec is adaptive.
fn run(store: &Store, work: impl Fn(u64) + Sync) {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (work, done) = (&work, &done);
            scope.spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(thread)));
                // Counted although it panicked: the others must not wait for it for ever.
                done.fetch_add(1, Relaxed);
                result.unwrap_or_else(|panic| resume_unwind(panic));
            });
        }
        if matches!(store.codec(), Codec::Adaptive(_)) {
            for _ in 0..2 {
                scope.spawn(|| recompress(store, &done));
            }
        }
    });
}

/// Returns refused writes and what became of recompression.
fn stress(codec: Codec, least: u64, frames: u64) -> (u64, Recompressed) {
    let store = store(BLOCKS, frames, codec);
    let refused = AtomicU64::new(0);
    run(&store, |thread| {
        refused.fetch_add(work(&store, thread + 1, least..=frames), Relaxed);
    });
    let recompressed = store.recompressed();
    assert_eq!(store.usage(), store.recount());
    for block in 0..BLOCKS {
        verify(block, &read(&store, block));
    }
    store.trim(0..BLOCKS).unwrap();
    let usage = store.usage();
    assert_eq!(usage, store.recount());
    assert_eq!((usage.used, usage.data, usage.compressed_blocks + usage.raw_blocks), (0, 0, 0));
    (refused.into_inner(), recompressed)
}

#[test]
fn threads_that_share_blocks_read_whole_versions_only() {
    for codec in [Codec::Lz4, Codec::Zstd(1)] {
        assert_eq!(stress(codec, BLOCKS, BLOCKS).0, 0, "there is media for the whole capacity");
    }
}

#[test]
fn threads_that_trim_the_same_blocks_give_their_map_back_once() {
    let store = store(BLOCKS, BLOCKS, Codec::Lz4);
    let start = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    if thread == 0 {
                        store.write(0, &version(0, 1)).unwrap();
                    }
                    start.wait();
                    store.trim(0..BLOCKS).unwrap();
                    start.wait();
                }
            });
        }
    });
    assert_eq!(store.usage(), store.recount());
}

#[test]
fn threads_on_a_full_store_read_whole_versions_only() {
    assert!(stress(Codec::Lz4, TIGHT.0, TIGHT.1).0 > 0, "the store was never full");
}

#[test]
fn recompression_changes_no_contents_and_refuses_no_write_while_media_is_left() {
    let (refused, recompressed) = stress(Codec::Adaptive(1), BLOCKS, BLOCKS);
    assert_eq!(refused, 0, "there is media for the whole capacity");
    assert!(recompressed.blocks > 0 && recompressed.saved > 0, "{recompressed:?}");
}

#[test]
fn recompression_of_a_full_store_changes_no_contents() {
    let (refused, recompressed) = stress(Codec::Adaptive(1), TIGHT.0, TIGHT.1);
    assert!(refused > 0, "the store was never full");
    assert!(recompressed.blocks > 0, "{recompressed:?}");
}

/// Each thread owns every fourth block, and must always find there what it wrote last.
fn own(codec: Codec) -> Recompressed {
    let store = store(BLOCKS, BLOCKS, codec);
    run(&store, |thread| {
        let mut random = Random::new(thread + 77);
        let mut latest = vec![0; BLOCKS as usize];
        for _ in 0..STEPS {
            // All threads meet in every leaf and slab. A few blocks are written far more often than the others.
            let range = if random.below(2) == 0 { 2 } else { BLOCKS / THREADS };
            let block = random.below(range) * THREADS + thread;
            let seed = random.below(1 << 32) | 1;
            store.write(block, &version(block, seed)).unwrap();
            latest[block as usize] = seed;
            let block = random.below(range) * THREADS + thread;
            let expected = match latest[block as usize] {
                0 => [0; BLOCK_SIZE],
                seed => version(block, seed),
            };
            assert!(read(&store, block) == expected, "block {block}");
        }
    });
    assert_eq!(store.usage(), store.recount());
    store.recompressed()
}

#[test]
fn threads_that_each_own_blocks_find_all_they_wrote() {
    own(Codec::Lz4);
}

#[test]
fn recompression_never_brings_back_what_was_overwritten_meanwhile() {
    // The slowest level: a write in between is almost sure.
    let recompressed = own(Codec::Adaptive(19));
    assert!(recompressed.blocks > 0, "{recompressed:?}");
}
