//! What a store holds, and what that is worth.

use super::BLOCK_SIZE;

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
    /// One word in 2^18 cannot be kept in the map (see docs/store.md): its blocks are compressed and counted so.
    pub same_filled_blocks: u64,
}

impl Usage {
    /// Media that is free: `physical - used`, 0 when over.
    pub fn free(&self) -> u64 {
        self.physical.saturating_sub(self.used)
    }
    /// Bytes written and not trimmed, before compression.
    pub fn logical(&self) -> u64 {
        let blocks = self.compressed_blocks.saturating_add(self.raw_blocks).saturating_add(self.same_filled_blocks);
        blocks.saturating_mul(BLOCK_SIZE as u64)
    }

    /// What the codec achieves: logical bytes to payload bytes. None while either is 0.
    pub fn data_ratio(&self) -> Option<Ratio> {
        Ratio::new(self.logical(), self.data)
    }

    /// What compression comes to in all: logical bytes to media and metadata. None while either is 0.
    pub fn effective_ratio(&self) -> Option<Ratio> {
        Ratio::new(self.logical(), self.used.saturating_add(self.metadata))
    }
}

/// How many logical bytes there are to each byte they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    logical: u64,
    taken: u64,
}

impl Ratio {
    fn new(logical: u64, taken: u64) -> Option<Self> {
        (logical > 0 && taken > 0).then_some(Self { logical, taken })
    }

    /// To two decimals.
    pub fn rounded(self) -> f64 {
        (self.logical as f64 / self.taken as f64 * 100.0).round() / 100.0
    }

    /// In thousandths, rounded down; at most `u32::MAX`.
    pub fn per_mille(self) -> u32 {
        u32::try_from(u128::from(self.logical) * 1000 / u128::from(self.taken)).unwrap_or(u32::MAX)
    }
}
