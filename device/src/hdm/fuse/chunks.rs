//! A table with an entry for each chunk of the file, allocated in pieces as chunks are touched: a large window that holds
//! little takes little.

use std::ops::Range;

/// Entries allocated together.
const LEAF: usize = 512;

/// Entries `0..len`, each its default until it is changed.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    leaves: Vec<Option<Box<[T]>>>,
    len: usize,
}

impl<T: Copy + Default> Chunks<T> {
    /// `len` entries that are their default.
    pub(super) fn new(len: usize) -> Self {
        Self { leaves: std::iter::repeat_with(|| None).take(len.div_ceil(LEAF)).collect(), len }
    }

    /// The entries of a range that may differ from their default, in order. Skips what was never allocated in pieces, and
    /// what is past the end.
    pub(super) fn touched(&self, range: Range<u64>) -> impl Iterator<Item = (u32, T)> + '_ {
        let end = range.end.min(self.len as u64) as usize;
        let start = range.start.min(end as u64) as usize;
        let leaves = self.leaves.iter().enumerate().take(end.div_ceil(LEAF)).skip(start / LEAF);
        leaves.filter_map(|(number, leaf)| Some((number * LEAF, leaf.as_ref()?))).flat_map(move |(first, leaf)| {
            let part = start.max(first) - first..(end - first).min(LEAF);
            part.map(move |at| ((first + at) as u32, leaf[at]))
        })
    }

    /// An entry; none past the end.
    pub(super) fn get(&self, index: u32) -> Option<T> {
        let index = index as usize;
        if index >= self.len {
            return None;
        }
        Some(self.leaves[index / LEAF].as_ref().map_or_else(T::default, |leaf| leaf[index % LEAF]))
    }

    /// An entry to change; none past the end.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        if index >= self.len {
            return None;
        }
        let leaf = self.leaves[index / LEAF].get_or_insert_with(|| vec![T::default(); LEAF].into());
        Some(&mut leaf[index % LEAF])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_of_touched_pieces_are_found_in_any_range() {
        let mut chunks = Chunks::<u8>::new(5 * LEAF + 7);
        for changed in [3, LEAF + 5, 5 * LEAF + 6] {
            if let Some(entry) = chunks.get_mut(changed as u32) {
                *entry = 1;
            }
        }
        let changed = |range: Range<u64>| -> Vec<usize> {
            chunks.touched(range).filter(|(_, entry)| *entry != 0).map(|(index, _)| index as usize).collect()
        };
        assert_eq!(changed(0..u64::MAX), [3, LEAF + 5, 5 * LEAF + 6]);
        assert_eq!(changed(3..4), [3]);
        assert_eq!(changed(4..(LEAF + 5) as u64), [0_usize; 0]);
        assert_eq!(changed((5 * LEAF + 6) as u64..u64::MAX), [5 * LEAF + 6]);
        assert_eq!(chunks.touched(2 * LEAF as u64..5 * LEAF as u64).count(), 0, "never allocated");
        assert_eq!(chunks.touched(u64::MAX..u64::MAX).count(), 0);
    }
}
