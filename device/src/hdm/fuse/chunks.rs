//! A table with an entry for each chunk of the file, allocated in pieces as chunks are touched: a large window that holds
//! little takes little.

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

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
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
