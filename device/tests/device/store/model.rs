//! Any sequence of writes, reads, trims, steps of recompression and changes of physical size, against a plain array. The media is tiny, so it
//! is exhausted all the time; the running counters must equal a recount after every step.

use std::ops::Range;

use cxl_cram_device::store::{BLOCK_SIZE, Block, Codec, Store, StoreError};
use proptest::prelude::*;

use super::data::{filled, letters, noisy, read, store, text};

/// A fill word that begins like a tagged map entry and therefore is compressed.
const COLLIDES: u64 = 0xa9b1_4000_0000_0000;
/// Three leaves of the map.
const BLOCKS: u64 = 1100;

#[derive(Clone, Debug)]
enum Data {
    /// One word, repeated.
    Fill(u64),
    /// `noise` random bytes, the rest a short pattern: the more noise, the larger the payload.
    Mixed { seed: u64, noise: usize },
    /// What zstd shrinks better than lz4.
    Text(u64),
    /// What zstd shrinks and lz4 does not.
    Letters(u64),
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Data),
    /// Writes neighbours with one kind of data, so that slabs fill.
    WriteRun(u64, u64, Data),
    Read(u64),
    Trim(Range<u64>),
    SetPhysical(u64),
    /// From a block, at most so many tries.
    Recompress(u64, usize),
}

fn block(data: &Data) -> Block {
    match *data {
        Data::Fill(word) => filled(word),
        Data::Mixed { seed, noise } => noisy(seed, noise),
        Data::Text(seed) => text(seed),
        Data::Letters(seed) => letters(seed),
    }
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(COLLIDES), any::<u64>()].prop_map(Data::Fill),
        4 => (any::<u64>(), 0..=BLOCK_SIZE).prop_map(|(seed, noise)| Data::Mixed { seed, noise }),
        2 => (any::<u64>(), 0..40_usize).prop_map(|(seed, noise)| Data::Mixed { seed, noise }),
        1 => any::<u64>().prop_map(|seed| Data::Mixed { seed, noise: BLOCK_SIZE }),
        2 => any::<u64>().prop_map(Data::Text),
        1 => any::<u64>().prop_map(Data::Letters),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // A few blocks on either side of the leaf borders, so that they are written again and again.
    let number = || prop_oneof![0..12_u64, 506..518_u64, 1020..1030_u64, BLOCKS - 4..BLOCKS];
    prop_oneof![
        12 => (number(), data()).prop_map(|(at, data)| Step::Write(at, data)),
        2 => (number(), 1..40_u64, data()).prop_map(|(at, len, data)| Step::WriteRun(at, len, data)),
        2 => number().prop_map(Step::Read),
        2 => (0..BLOCKS, 0..BLOCKS).prop_map(|(a, b)| Step::Trim(a.min(b)..a.max(b))),
        1 => (number(), 0..4_u64).prop_map(|(at, len)| Step::Trim(at..(at + len).min(BLOCKS))),
        1 => Just(Step::Trim(0..BLOCKS)),
        6 => (number(), 0..20_usize).prop_map(|(from, tries)| Step::Recompress(from, tries)),
        2 => (0..24_u64).prop_map(|frames| Step::SetPhysical(frames * BLOCK_SIZE as u64)),
    ]
}

fn write(store: &Store, model: &mut [Block], at: u64, data: &Block) -> Result<(), TestCaseError> {
    match store.write(at, data) {
        Ok(()) => model[at as usize] = *data,
        Err(StoreError::Full { block, needed }) => {
            prop_assert_eq!(block, at);
            prop_assert!((1..=BLOCK_SIZE).contains(&needed));
            prop_assert_eq!(store.usage().free(), 0, "refused although a frame is free");
            model[at as usize] = [0; BLOCK_SIZE];
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    Ok(())
}

fn recompress(store: &Store, from: u64, tries: usize) -> Result<(), TestCaseError> {
    let (before, total) = (store.usage(), store.recompressed());
    let step = store.recompress(from, tries);
    let (after, new_total) = (store.usage(), store.recompressed());
    prop_assert!(step.changed <= step.tried && step.tried <= tries.max(1));
    prop_assert!(step.next.is_none_or(|next| next > from && next < BLOCKS), "{:?}", step);
    prop_assert_eq!(before.data - after.data, step.saved);
    prop_assert_eq!(before.compressed_blocks + before.raw_blocks, after.compressed_blocks + after.raw_blocks);
    prop_assert_eq!(new_total.blocks - total.blocks, step.changed as u64);
    prop_assert_eq!(new_total.saved - total.saved, step.saved);
    Ok(())
}

fn check(codec: Codec, frames: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    let store = store(BLOCKS, frames, codec);
    let mut model = vec![[0; BLOCK_SIZE]; BLOCKS as usize];
    for step in steps {
        let used = store.usage().used;
        match step {
            Step::Write(at, data) => write(&store, &mut model, *at, &block(data))?,
            Step::WriteRun(at, len, data) => {
                for at in *at..(at + len).min(BLOCKS) {
                    let mut data = block(data);
                    data[0] ^= at as u8;
                    write(&store, &mut model, at, &data)?;
                }
            }
            Step::Read(at) => {
                prop_assert!(read(&store, *at) == model[*at as usize], "block {} differs", at);
            }
            Step::Trim(blocks) => {
                store.trim(blocks.clone()).unwrap();
                model[blocks.start as usize..blocks.end as usize].fill([0; BLOCK_SIZE]);
            }
            Step::Recompress(from, tries) => recompress(&store, *from, *tries)?,
            Step::SetPhysical(bytes) => prop_assert_eq!(store.set_physical(*bytes), *bytes),
        }
        let usage = store.usage();
        prop_assert_eq!(usage, store.recount());
        prop_assert!(usage.used <= usage.physical.max(used), "{:?}", usage);
        prop_assert!(usage.data <= usage.used, "{:?}", usage);
    }
    for (at, expected) in (0..).zip(&model) {
        prop_assert!(read(&store, at) == *expected, "block {} differs at the end", at);
    }
    store.trim(0..BLOCKS).unwrap();
    let usage = store.usage();
    prop_assert_eq!(usage, store.recount());
    prop_assert_eq!((usage.used, usage.data), (0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_an_array_that_forgets_only_what_it_refused(
        codec in prop_oneof![Just(Codec::Lz4), Just(Codec::Zstd(1)), Just(Codec::Zstd(-1)), Just(Codec::Zstd(9)), Just(Codec::Adaptive(1)), Just(Codec::Adaptive(3)), Just(Codec::Adaptive(3))],
        frames in 0..24_u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        check(codec, frames, &steps)?;
    }
}
