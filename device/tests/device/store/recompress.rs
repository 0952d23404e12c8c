//! The adaptive codec: what turns cold becomes smaller, what does not shrink is left alone.

use cxl_cram_device::store::{BLOCK_SIZE, Codec, RecompressStep, Store};

use super::data::{filled, letters, noisy, read, store, text};

const BLOCKS: u64 = 1200;
const ADAPTIVE: Codec = Codec::Adaptive(3);

/// One pass over the whole store. Blocks tried and blocks changed.
fn pass_unchecked(store: &Store) -> (usize, usize) {
    pass_with(store, || {})
}

/// The same with a recount after each step.
fn pass(store: &Store) -> (usize, usize) {
    pass_with(store, || assert_eq!(store.usage(), store.recount()))
}

fn pass_with(store: &Store, after_step: impl Fn()) -> (usize, usize) {
    let (mut from, mut tried, mut changed) = (Some(0), 0, 0);
    while let Some(at) = from {
        let step = store.recompress(at, 16);
        (from, tried, changed) = (step.next, tried + step.tried, changed + step.changed);
        after_step();
    }
    (tried, changed)
}

#[test]
fn a_block_is_recompressed_once_it_was_not_written_for_a_whole_pass() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    store.write(700, &text(1)).unwrap();
    let fresh = store.usage();
    assert_eq!(pass(&store), (0, 0), "just written");
    store.write(700, &text(1)).unwrap();
    assert_eq!(pass(&store), (0, 0), "written since the pass before, with the same bytes into the same slot");
    assert_eq!(pass(&store), (1, 1));
    let cold = store.usage();
    assert!(cold.data < fresh.data * 9 / 10, "{fresh:?} {cold:?}");
    assert_eq!(store.recompressed().saved, fresh.data - cold.data);
    assert_eq!(read(&store, 700), text(1));
    assert_eq!(pass(&store), (0, 0), "it is zstd now");
}

#[test]
fn a_raw_block_that_only_the_stronger_codec_shrinks_is_compressed() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    store.write(0, &letters(1)).unwrap();
    assert_eq!(store.usage().raw_blocks, 1);
    pass(&store);
    assert_eq!(pass(&store), (1, 1));
    let usage = store.usage();
    assert_eq!((usage.raw_blocks, usage.compressed_blocks), (0, 1));
    assert!(usage.data < BLOCK_SIZE as u64 * 6 / 10);
    assert_eq!(read(&store, 0), letters(1));
}

#[test]
fn a_renewed_store_is_empty_and_goes_on_counting() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    (0..60).for_each(|block| store.write(block, &text(block)).unwrap());
    pass(&store);
    let (_, changed) = pass(&store);
    assert!(changed > 0);
    store.set_physical(50 * BLOCK_SIZE as u64);
    let renewed = store.renewed().unwrap();
    assert_eq!((renewed.usage().logical(), renewed.usage().used), (0, 0));
    assert_eq!((renewed.usage().physical, renewed.blocks()), (50 * BLOCK_SIZE as u64, BLOCKS));
    assert_eq!((renewed.recompressed(), renewed.moved()), (store.recompressed(), store.moved()));
    assert_eq!(read(&renewed, 7), [0; BLOCK_SIZE]);
    renewed.write(7, &text(7)).unwrap();
    pass(&renewed);
    assert_eq!(pass(&renewed), (1, 1));
    assert_eq!(renewed.recompressed().blocks, changed as u64 + 1);
    assert_eq!(renewed.usage(), renewed.recount());
}

#[test]
fn a_block_that_does_not_shrink_stays_as_it_is_and_is_tried_once_a_write() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    for _ in 0..2 {
        store.write(0, &noisy(1, BLOCK_SIZE)).unwrap();
        store.write(1, &noisy(2, 3000)).unwrap();
        let before = store.usage();
        assert_eq!(pass(&store), (0, 0));
        assert_eq!(pass(&store), (2, 0));
        assert_eq!(pass(&store), (0, 0));
        assert_eq!(store.usage(), before);
    }
}

#[test]
fn blocks_without_media_are_not_tried() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    store.write(0, &filled(0)).unwrap();
    store.write(1, &filled(1)).unwrap();
    store.write(2, &text(2)).unwrap();
    store.trim(2..3).unwrap();
    assert_eq!((pass(&store), pass(&store)), ((0, 0), (0, 0)));
    assert_eq!(store.usage().same_filled_blocks, 2);
}

#[test]
fn a_full_store_makes_room_by_itself() {
    let store = store(BLOCKS, 400, ADAPTIVE);
    let blocks = (0..BLOCKS).take_while(|at| store.write(*at, &text(*at)).is_ok()).count() as u64;
    let full = store.usage();
    assert_eq!(full.free(), 0);
    assert_eq!(pass(&store), (0, 0));
    // What finds no room in one pass finds it in a later one, but for the rest of a frame in a class or two.
    while pass(&store).1 > 0 {}
    let changed = store.recompressed().blocks;
    assert!(changed > blocks * 9 / 10, "{changed} of {blocks} blocks");
    let usage = store.usage();
    assert!(usage.used < full.used * 9 / 10, "{full:?} {usage:?}");
    assert!((0..blocks).all(|at| read(&store, at) == text(at)));
}

/// From no free frame on: `RECOMPRESS_IMAGE=FILE`, run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "needs a memory image or other large file; the figures of docs/store.md"]
fn what_an_image_shrinks_to() {
    let image = std::fs::read(std::env::var_os("RECOMPRESS_IMAGE").unwrap()).unwrap();
    let blocks = image.as_chunks::<BLOCK_SIZE>().0;
    for level in [1, 3, 9] {
        let count = blocks.len() as u64;
        let store = store(count, count, Codec::Adaptive(level));
        (0..).zip(blocks).for_each(|(at, block)| store.write(at, block).unwrap());
        // Just as much media as that takes: none is free.
        let before = store.usage();
        store.set_physical(before.used);
        pass_unchecked(&store);
        let start = std::time::Instant::now();
        let first = pass_unchecked(&store);
        let took = start.elapsed() / first.0.max(1) as u32;
        let mut passes = 1;
        while pass_unchecked(&store).1 > 0 {
            passes += 1;
        }
        let (after, left) = (store.usage(), pass_unchecked(&store).0);
        assert_eq!(after, store.recount());
        assert!((0..).zip(blocks).all(|(at, block)| read(&store, at) == *block));
        println!(
            "adaptive:{level} {count} blocks: used {} -> {} KiB, data {} -> {} KiB, first pass {first:?} {took:?} a block, {passes} passes, {left} left",
            before.used >> 10,
            after.used >> 10,
            before.data >> 10,
            after.data >> 10,
        );
    }
}

#[test]
fn a_store_that_is_not_full_recompresses_every_block_that_shrinks_in_one_pass() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    (0..800).for_each(|at| store.write(at, &text(at)).unwrap());
    assert_eq!((pass(&store), pass(&store)), ((0, 0), (800, 800)));
    assert!((0..800).all(|at| read(&store, at) == text(at)));
}

#[test]
fn media_shrunk_below_what_is_used_is_never_exceeded_further() {
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    (0..300).for_each(|at| store.write(at, &letters(at)).unwrap());
    store.set_physical(8 * BLOCK_SIZE as u64);
    let mut used = store.usage().used;
    for _ in 0..10 {
        pass(&store);
        assert!(store.usage().used <= used);
        used = store.usage().used;
    }
}

#[test]
fn other_codecs_and_blocks_past_the_end_have_nothing_to_do() {
    for codec in [Codec::Lz4, Codec::Zstd(3)] {
        let store = store(BLOCKS, BLOCKS, codec);
        store.write(0, &text(0)).unwrap();
        assert_eq!((pass(&store), pass(&store)), ((0, 0), (0, 0)));
    }
    let store = store(BLOCKS, BLOCKS, ADAPTIVE);
    store.write(0, &text(0)).unwrap();
    for from in [BLOCKS, u64::MAX] {
        assert_eq!(store.recompress(from, usize::MAX), RecompressStep::default());
    }
}
