//! The store: 4 KiB blocks in, compressed bytes in a bounded arena out.
//!
//! Blocks are numbered from 0; a block that was never written, or was trimmed, reads as zeros and holds no media.
//! All methods take `&self` and may be called from many threads; calls on one block are serialised inside.

use std::ops::Range;

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;

/// The contents of one block.
pub type Block = [u8; BLOCK_SIZE];

/// How blocks are compressed. Parsed from `lz4`, `zstd` (level 1) or `zstd:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// LZ4 block format (lz4_flex).
    Lz4,
    /// Zstandard at this level.
    Zstd(i32),
}

/// What a store is made from.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Blocks that can be addressed: capacity / [`BLOCK_SIZE`].
    pub blocks: u64,
    /// Bytes of media that exist, a multiple of [`BLOCK_SIZE`] (one frame).
    pub physical: u64,
    /// The codec for new blocks.
    pub codec: Codec,
}

/// What the store holds, all in bytes but the block counts. `used + free == physical`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Media that exists.
    pub physical: u64,
    /// Media taken: frames held by slabs x 4096. May exceed `physical` only after physical was shrunk below it.
    pub used: u64,
    /// Compressed payload: the sum of the stored lengths, without slab padding and free slots.
    pub data: u64,
    /// Host memory for the block map, slab descriptors and back-pointers that is really touched. Not media.
    pub metadata: u64,
    /// Blocks that are written and hold something else than a same-filled pattern, compressed.
    pub compressed_blocks: u64,
    /// Blocks stored as they are because they do not shrink.
    pub raw_blocks: u64,
    /// Blocks that are one repeated 8-byte word (zero included when written and not trimmed); they hold no media.
    pub same_filled_blocks: u64,
}

impl Usage {
    /// Media that is free: `physical - used`, 0 when over.
    pub fn free(&self) -> u64 {
        self.physical.saturating_sub(self.used)
    }
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The media is full. The block's earlier contents are gone as well: it now reads as zeros and holds no media.
    #[error("the media is full: block {block} needs {needed} bytes and no slab can take it")]
    Full {
        /// The block that did not fit.
        block: u64,
        /// Its compressed length.
        needed: usize,
    },
    /// The block number is past the end.
    #[error("block {block} is past the end: the store has {blocks} blocks")]
    OutOfRange {
        /// The block asked for.
        block: u64,
        /// Blocks there are.
        blocks: u64,
    },
    /// What was stored does not decompress: a defect of the store, never to be seen.
    #[error("block {block} does not decompress")]
    Corrupt {
        /// The block.
        block: u64,
    },
    /// The arena could not be mapped.
    #[error("cannot reserve {bytes} bytes of address space for the media; choose a smaller physical size")]
    Arena {
        /// Bytes asked for.
        bytes: u64,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The store.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// An empty store.
    pub fn new(_config: &StoreConfig) -> Result<Self, StoreError> {
        todo!()
    }

    /// Blocks that can be addressed.
    pub fn blocks(&self) -> u64 {
        todo!()
    }

    /// Replaces the contents of a block. On [`StoreError::Full`] the earlier contents are freed too.
    pub fn write(&self, _block: u64, _data: &Block) -> Result<(), StoreError> {
        todo!()
    }

    /// Reads a block; zeros if it was never written.
    pub fn read(&self, _block: u64, _out: &mut Block) -> Result<(), StoreError> {
        todo!()
    }

    /// Forgets blocks; they read as zeros and hold no media. A range past the end is refused whole.
    pub fn trim(&self, _blocks: Range<u64>) -> Result<(), StoreError> {
        todo!()
    }

    /// What the store holds now, from running counters: O(1).
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// The same figures by a walk over map and slabs, for checks: O(blocks).
    pub fn recount(&self) -> Usage {
        todo!()
    }

    /// Changes how much media exists. Shrinking below what is used loses nothing: writes are refused until it fits.
    /// Returns the physical size now in force.
    pub fn set_physical(&self, _bytes: u64) -> Result<u64, StoreError> {
        todo!()
    }
}
