//! What blocks take on the device: the store's size-class rule, at any block size.
//!
//! A payload takes a slot of the next multiple of [`STEP`] bytes. The slots of a class fill frames of 4 KiB from end to
//! end, so a class takes its slots' bytes, rounded up to a frame. On top come 8 bytes of map for each block and 4 of
//! back-pointer for each slot. That is what the store comes to when blocks are only added; `StoreCheck` in the report
//! holds the rule against the real store in every run.

use super::PAGE;
use crate::store::{MAP_ENTRY, POINTER, STEP};

/// Blocks by size class.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    classes: Vec<u64>,
    same_filled: u64,
}

impl Packing {
    /// No blocks of this size.
    pub(super) fn new(block_size: usize) -> Self {
        Self { classes: vec![0; block_size / STEP], same_filled: 0 }
    }

    /// Counts a payload of 1..=block size bytes.
    pub(super) fn add(&mut self, len: usize) {
        self.classes[(len - 1) / STEP] += 1;
    }

    /// Counts a block that needs no slot.
    pub(super) fn add_same_filled(&mut self) {
        self.same_filled += 1;
    }

    /// Counts all that another has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.classes.iter_mut().zip(&other.classes).for_each(|(mine, theirs)| *mine += theirs);
        self.same_filled += other.same_filled;
    }

    /// Bytes all that takes.
    pub(super) fn footprint(&self) -> u64 {
        let page = PAGE as u64;
        let classes = (1..).zip(&self.classes).map(|(class, slots)| {
            let frames = (slots * class * STEP as u64).div_ceil(page);
            frames * (page + POINTER) + slots * (POINTER + MAP_ENTRY)
        });
        classes.sum::<u64>() + self.same_filled * MAP_ENTRY
    }
}

/// Bytes that one more block takes in slabs that are large: its share, without the rounding to frames.
pub(super) fn share(len: Option<usize>) -> u64 {
    len.map_or(0, |len| len.next_multiple_of(STEP) as u64 + POINTER) + MAP_ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_takes_whole_frames() {
        let mut packing = Packing::new(4096);
        packing.add(1);
        assert_eq!(packing.footprint(), 4096 + 4 + 12);
        for _ in 1..128 {
            packing.add(32);
        }
        assert_eq!(packing.footprint(), 4096 + 4 + 128 * 12);
        packing.add(32);
        assert_eq!(packing.footprint(), 2 * (4096 + 4) + 129 * 12);
        packing.add_same_filled();
        assert_eq!(packing.footprint(), 2 * (4096 + 4) + 129 * 12 + 8);
    }

    #[test]
    fn shares_add_up_to_the_footprint_but_for_the_last_frames() {
        let (mut packing, mut shares) = (Packing::new(4096), 0);
        for len in (1..=4096).cycle().take(100_000) {
            packing.add(len);
            shares += share(Some(len));
        }
        let footprint = packing.footprint();
        assert!(shares <= footprint && footprint - shares < 128 * 4096 + footprint / 1000, "{shares} {footprint}");
    }
}
