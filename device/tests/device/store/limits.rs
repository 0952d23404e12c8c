//! At the edges: full media, shrunk media, odd sizes, a capacity far beyond the host's memory.

use cxl_cram_device::store::{BLOCK_SIZE, Codec, Store, StoreConfig, StoreError};

use super::data::{Random, filled, noisy, read, store};

const FRAME: u64 = BLOCK_SIZE as u64;

fn is_full(result: Result<(), StoreError>, at: u64) -> bool {
    match result {
        Err(StoreError::Full { block, needed }) => {
            assert_eq!(block, at);
            assert!(needed > 0 && needed <= BLOCK_SIZE);
            true
        }
        Err(error) => panic!("{error}"),
        Ok(()) => false,
    }
}

#[test]
fn as_many_raw_blocks_fit_as_there_are_frames() {
    for frames in [0, 1, 2, 7, 64] {
        let store = store(100, frames, Codec::Lz4);
        for at in 0..100 {
            assert_eq!(is_full(store.write(at, &noisy(at, BLOCK_SIZE)), at), at >= frames);
        }
        let usage = store.usage();
        assert_eq!((usage.raw_blocks, usage.used, usage.free()), (frames, frames * FRAME, 0));
        assert_eq!(usage, store.recount());
    }
}

#[test]
fn with_media_for_the_whole_capacity_no_write_is_ever_refused() {
    const BLOCKS: u64 = 300;
    let store = store(BLOCKS, BLOCKS, Codec::Lz4);
    let mut random = Random::new(3);
    for pass in 0..12 {
        // Mostly blocks that barely shrink, in ever other classes: slack in one slab is what another one needs.
        let low = pass % 3 * 300;
        for _ in 0..BLOCKS {
            let at = random.below(BLOCKS);
            let noise = (3190 + low + random.below(300)) as usize;
            store.write(at, &noisy(random.next(), noise)).unwrap();
        }
        assert_eq!(store.usage(), store.recount());
    }
}

#[test]
fn a_full_store_takes_back_what_a_trim_frees() {
    let store = store(64, 16, Codec::Zstd(1));
    for at in 0..64 {
        is_full(store.write(at, &noisy(at, 2000)), at);
    }
    assert!(store.usage().compressed_blocks < 64);
    for at in 0..64 {
        store.trim(at..at + 1).unwrap();
    }
    assert_eq!(store.usage().used, 0);
    for at in 0..16 {
        store.write(at, &noisy(at, BLOCK_SIZE)).unwrap();
    }
}

#[test]
fn a_refused_write_frees_the_earlier_contents_and_disturbs_no_other() {
    let store = store(8, 2, Codec::Lz4);
    store.write(0, &noisy(0, BLOCK_SIZE)).unwrap();
    store.write(1, &noisy(1, 100)).unwrap();
    store.write(2, &noisy(2, 100)).unwrap();
    assert!(is_full(store.write(1, &noisy(3, BLOCK_SIZE)), 1));
    assert_eq!(read(&store, 1), [0; BLOCK_SIZE]);
    assert_eq!(read(&store, 0), noisy(0, BLOCK_SIZE));
    assert_eq!(read(&store, 2), noisy(2, 100));
    let usage = store.usage();
    assert_eq!((usage.raw_blocks, usage.compressed_blocks), (1, 1));
    assert_eq!(usage, store.recount());
}

#[test]
fn a_block_may_take_the_space_it_gives_up() {
    let store = store(4, 1, Codec::Lz4);
    store.write(0, &noisy(0, 3000)).unwrap();
    store.write(0, &noisy(1, BLOCK_SIZE)).unwrap();
    assert_eq!(read(&store, 0), noisy(1, BLOCK_SIZE));
    store.write(0, &noisy(2, 100)).unwrap();
    assert_eq!(read(&store, 0), noisy(2, 100));
}

#[test]
fn same_filled_blocks_need_no_media() {
    let store = store(64, 0, Codec::Lz4);
    for at in 0..64 {
        store.write(at, &filled(at)).unwrap();
    }
    for at in 0..64 {
        assert_eq!(read(&store, at), filled(at));
    }
    let usage = store.usage();
    assert_eq!((usage.same_filled_blocks, usage.used, usage.data), (64, 0, 0));
    store.trim(0..1).unwrap();
    assert_eq!(store.usage().same_filled_blocks, 63, "a block of written zeros is forgotten by trim");
}

#[test]
fn a_block_that_differs_in_one_byte_only_is_not_same_filled() {
    let store = store(1, 1, Codec::Lz4);
    for at in 0..BLOCK_SIZE {
        let mut block = filled(0x0101_0101_0101_0101);
        block[at] ^= 0x80;
        store.write(0, &block).unwrap();
        assert_eq!(store.usage().same_filled_blocks, 0, "byte {at}");
        assert_eq!(read(&store, 0), block, "byte {at}");
    }
}

#[test]
fn media_shrunk_below_what_is_used_loses_nothing() {
    let store = store(64, 32, Codec::Lz4);
    for at in 0..32 {
        store.write(at, &noisy(at, BLOCK_SIZE)).unwrap();
    }
    assert_eq!(store.set_physical(8 * FRAME), 8 * FRAME);
    let usage = store.usage();
    assert_eq!((usage.physical, usage.used, usage.free()), (8 * FRAME, 32 * FRAME, 0));
    assert!(is_full(store.write(40, &noisy(40, BLOCK_SIZE)), 40));
    assert!((0..32).all(|at| read(&store, at) == noisy(at, BLOCK_SIZE)));
    store.trim(0..25).unwrap();
    store.write(40, &noisy(40, BLOCK_SIZE)).unwrap();
    assert!(is_full(store.write(41, &noisy(41, BLOCK_SIZE)), 41));
}

#[test]
fn media_may_grow_up_to_the_capacity() {
    let store = store(10, 1, Codec::Lz4);
    assert_eq!(store.set_physical(5 * FRAME + 1), 5 * FRAME, "whole frames only");
    assert_eq!(store.set_physical(u64::MAX), 10 * FRAME);
    for at in 0..10 {
        store.write(at, &noisy(at, BLOCK_SIZE)).unwrap();
    }
    assert_eq!(store.usage().used, 10 * FRAME);
}

#[test]
fn block_numbers_past_the_end_are_refused() {
    let store = store(10, 10, Codec::Lz4);
    let refused = |result| matches!(result, Err(StoreError::OutOfRange { blocks: 10, .. }));
    for at in [10, 11, u64::MAX] {
        assert!(refused(store.write(at, &filled(1))));
        assert!(refused(store.read(at, &mut [0; BLOCK_SIZE])));
    }
    store.write(9, &filled(1)).unwrap();
    assert!(refused(store.trim(9..11)));
    assert!(refused(store.trim(0..u64::MAX)));
    assert_eq!(read(&store, 9), filled(1), "a trim past the end is refused whole");
    store.trim(10..10).unwrap();
    store.trim(0..10).unwrap();
    assert_eq!(read(&store, 9), filled(0));
}

#[test]
fn a_store_without_blocks_holds_nothing() {
    let store = store(0, 1, Codec::Lz4);
    assert!(store.write(0, &filled(0)).is_err());
    store.trim(0..0).unwrap();
    assert_eq!(store.usage(), store.recount());
}

#[test]
fn too_many_blocks_are_refused_with_a_sentence() {
    let config = StoreConfig { blocks: u64::MAX, physical: 0, codec: Codec::Lz4 };
    let error = Store::new(&config).unwrap_err();
    assert!(error.to_string().contains("choose a smaller capacity"), "{error}");
}

#[test]
fn a_tebibyte_of_capacity_costs_what_is_written() {
    const BLOCKS: u64 = 1 << 28;
    let store = store(BLOCKS, 1 << 16, Codec::Lz4);
    let empty = store.usage();
    assert!(empty.metadata < 256 << 10, "{empty:?}");
    for at in (0..BLOCKS).step_by(1 << 22) {
        store.write(at, &noisy(at, 500)).unwrap();
    }
    let usage = store.usage();
    assert_eq!(usage, store.recount());
    assert!(usage.metadata < empty.metadata + 64 * 4096 + 4096, "one page of map for each block: {usage:?}");
    store.trim(0..BLOCKS).unwrap();
    let usage = store.usage();
    assert_eq!((usage.used, usage.compressed_blocks), (0, 0));
    assert!(usage.metadata < empty.metadata + 4096, "the map is given back: {usage:?}");
}
