//! A value for each block, where neighbours of one value are one entry: a device that has lost all its blocks keeps one.

use std::{collections::BTreeMap, ops::Range};

/// The value of every block is the default until it is set.
#[derive(Debug)]
pub(super) struct Runs<T>(BTreeMap<u64, Run<T>>);

/// The blocks from its key to its end. Runs do not overlap, none has the default, and those that touch differ.
#[derive(Clone, Copy, Debug)]
struct Run<T> {
    end: u64,
    value: T,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy + Default + PartialEq> Runs<T> {
    /// The value of a block.
    pub(super) fn get(&self, block: u64) -> T {
        self.0
            .range(..=block)
            .next_back()
            .filter(|(_, run)| block < run.end)
            .map_or_else(T::default, |(_, run)| run.value)
    }

    /// The runs that overlap a range, in order, cut to it.
    pub(super) fn within(&self, blocks: Range<u64>) -> impl Iterator<Item = (Range<u64>, T)> + '_ {
        let Range { start, end } = blocks;
        let before = self.0.range(..start).next_back().filter(|(_, run)| run.end > start);
        let rest = (start < end).then(|| self.0.range(start..end)).into_iter().flatten();
        before
            .filter(|_| start < end)
            .into_iter()
            .chain(rest)
            .map(move |(&first, run)| (first.max(start)..run.end.min(end), run.value))
    }

    /// Gives blocks a value.
    pub(super) fn set(&mut self, blocks: Range<u64>, value: T) {
        let Range { start, end } = blocks;
        if start >= end {
            return;
        }
        self.split(start);
        self.split(end);
        while let Some((&first, _)) = self.0.range(start..end).next() {
            self.0.remove(&first);
        }
        if value != T::default() {
            self.0.insert(start, Run { end, value });
            self.join(end);
            self.join(start);
        }
    }

    /// Makes this block the first of a run, if it is in one.
    fn split(&mut self, at: u64) {
        if let Some((_, run)) = self.0.range_mut(..at).next_back()
            && run.end > at
        {
            let rest = *run;
            run.end = at;
            self.0.insert(at, rest);
        }
    }

    /// Joins the run that begins here with the one that ends here, if they have one value.
    fn join(&mut self, at: u64) {
        let Some(&after) = self.0.get(&at) else { return };
        if let Some((_, before)) = self.0.range_mut(..at).next_back()
            && before.end == at
            && before.value == after.value
        {
            before.end = after.end;
            self.0.remove(&at);
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.0.len()
    }
}
