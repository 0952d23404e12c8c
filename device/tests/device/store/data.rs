//! Blocks to store: the same on every run, and as compressible as asked.

use cxl_cram_device::store::{BLOCK_SIZE, Block, Codec, Store, StoreConfig};

/// xorshift64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Never 0, where xorshift stays for ever.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A whole number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// A block that repeats a word.
pub(crate) fn filled(word: u64) -> Block {
    let mut block = [0; BLOCK_SIZE];
    block.as_chunks_mut().0.fill(word.to_ne_bytes());
    block
}

/// A block that begins with about `noise` random bytes and goes on with a short pattern: the more noise, the larger
/// its payload. It is never same-filled.
pub(crate) fn noisy(seed: u64, noise: usize) -> Block {
    let mut random = Random::new(seed);
    let mut block: Block = std::array::from_fn(|at| (at % 7) as u8);
    for word in block[..noise].as_chunks_mut().0 {
        *word = random.next().to_ne_bytes();
    }
    block
}

/// A block of words, as in text: lz4 shrinks it, zstd shrinks it much more.
pub(crate) fn text(seed: u64) -> Block {
    let mut words = Random::new(7);
    let words: Vec<String> = (0..400)
        .map(|_| (0..2 + words.below(8)).map(|_| char::from(b'a' + words.below(16) as u8)).chain([' ']).collect())
        .collect();
    let mut random = Random::new(seed);
    let mut bytes = std::iter::repeat_with(|| words[random.below(400) as usize].bytes()).flatten();
    std::array::from_fn(|_| bytes.next().unwrap())
}

/// Letters without words: lz4 finds nothing in them, zstd makes half of them.
pub(crate) fn letters(seed: u64) -> Block {
    let mut random = Random::new(seed);
    std::array::from_fn(|_| b'a' + random.below(16) as u8)
}

/// A store of this many blocks and frames.
pub(crate) fn store(blocks: u64, frames: u64, codec: Codec) -> Store {
    Store::new(&StoreConfig { blocks, physical: frames * BLOCK_SIZE as u64, codec }).unwrap()
}

/// The contents of a block.
pub(crate) fn read(store: &Store, block: u64) -> Block {
    // Not zeros, so that a read that does nothing is noticed.
    let mut out = [0xee; BLOCK_SIZE];
    store.read(block, &mut out).unwrap();
    out
}
