//! Which pages of the window are resident, and which to give up next.
//!
//! The kernel does not report how often a resident page is used, only that it had to be read. So the sign of use is the
//! refault. A page that is read for the first time is on *probation*: first in, first out of a part of the cache. A page
//! that is read again soon after it was evicted is *kept*: it has the rest of the cache, and each return lets it be passed
//! over once more. (This is 2Q, Johnson and Shasha 1994, with a reinsertion for hits that are not seen.) Pure data, no
//! system calls; the caller brings the lock.

mod remembered;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use self::remembered::Remembered;
use super::chunks::Chunks;

/// Pages in a chunk, the unit of the books: 128 KiB, what the kernel reads in one request at most.
pub(super) const CHUNK_PAGES: u64 = 32;

/// The best record of a page. It is passed over one time less.
const MAX_LEVEL: u8 = 3;

/// Pages are evicted from those on probation while these are more than this part of the bound.
const PROBATION: u64 = 4;

/// Room kept free ahead of demand is this part of the bound, so that reads seldom wait.
const RESERVE: u64 = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    /// Resident pages, bit n for page n.
    pages: u32,
    /// Pages that have a place in one of the queues.
    queued: u32,
    /// Evictions under way. Reads of such a chunk must not wait for room: the eviction waits for them.
    leaving: u8,
    /// Reads that wait for room. The chunk must not be evicted: the eviction would wait for them.
    parked: u8,
}

/// A page's place in a queue. The page may have left meanwhile.
#[derive(Clone, Copy, Debug)]
struct Place {
    page: u64,
    /// How often it has come back soon.
    level: u8,
    /// How often it is still passed over.
    lives: u8,
}

/// Pages taken out of the books while the kernel drops them. Must be given back to [`Cache::finish`].
#[derive(Debug)]
#[must_use]
pub(super) struct Leaving {
    chunk: u32,
    pages: u32,
}

impl Leaving {
    /// The chunk's pages, numbered in the file.
    pub(super) fn span(&self) -> Range<u64> {
        let start = u64::from(self.chunk) * CHUNK_PAGES;
        start..start + CHUNK_PAGES
    }

    /// The runs of those that were resident, numbered in the file.
    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        runs(self.span().start, self.pages)
    }

    /// How many of them were resident.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.pages.count_ones())
    }
}

/// Residency of a window, counted in pages. Never below what is really resident; above it when the kernel dropped pages
/// by itself.
#[derive(Debug)]
pub(super) struct Cache {
    chunks: Chunks<Chunk>,
    probation: VecDeque<Place>,
    kept: VecDeque<Place>,
    remembered: Remembered,
    resident: u64,
    bound: u64,
}

impl Cache {
    /// An empty cache for a file of this many pages.
    pub(super) fn new(file_pages: u64, bound: u64) -> Self {
        Self {
            chunks: Chunks::new(file_pages.div_ceil(CHUNK_PAGES) as usize),
            probation: VecDeque::new(),
            kept: VecDeque::new(),
            remembered: Remembered::new(bound),
            resident: 0,
            bound,
        }
    }

    /// Pages resident, those on their way out included.
    pub(super) fn resident(&self) -> u64 {
        self.resident
    }

    /// Most pages that may be resident.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    fn reserve(&self) -> u64 {
        (self.bound / RESERVE).max(1)
    }

    /// Pages to evict now; 0 as long as there is room to spare beside `wanted` pages that are to be read ahead. `urgent`:
    /// a read waits.
    pub(super) fn excess(&self, urgent: bool, wanted: u64) -> u64 {
        let resident = self.resident + wanted;
        if urgent || resident > self.bound.saturating_sub(self.reserve()) {
            resident.saturating_sub(self.bound.saturating_sub(2 * self.reserve()))
        } else {
            0
        }
    }

    /// Whether a read of these pages may proceed at once: there is room, or an eviction waits for it.
    pub(super) fn admits(&self, pages: &Range<u64>) -> bool {
        let leaving = |(chunk, _)| self.chunks.get(chunk).is_some_and(|state| state.leaving > 0);
        parts(pages).any(leaving) || self.has_room(pages)
    }

    /// Whether these pages fit beside those that are resident.
    pub(super) fn has_room(&self, pages: &Range<u64>) -> bool {
        let new = |(chunk, mask): (u32, u32)| {
            self.chunks.get(chunk).map_or(0, |state| u64::from((mask & !state.pages).count_ones()))
        };
        self.resident + parts(pages).map(new).sum::<u64>() <= self.bound
    }

    /// These pages become resident, because the guest asked for them or is expected to.
    pub(super) fn enter(&mut self, pages: &Range<u64>) {
        for (chunk, mask) in parts(pages) {
            let Some(state) = self.chunks.get_mut(chunk) else { continue };
            self.resident += u64::from((mask & !state.pages).count_ones());
            let new = mask & !state.queued;
            state.pages |= mask;
            state.queued |= mask;
            for page in runs(u64::from(chunk) * CHUNK_PAGES, new).flatten() {
                match self.remembered.recall(page) {
                    Some(level) => {
                        let level = (level + 1).min(MAX_LEVEL);
                        self.kept.push_back(Place { page, level, lives: level - 1 });
                    }
                    None => self.probation.push_back(Place { page, level: 0, lives: 0 }),
                }
            }
        }
    }

    /// Whether a page is in the books as resident.
    pub(super) fn contains(&self, page: u64) -> bool {
        self.chunks.get((page / CHUNK_PAGES) as u32).is_some_and(|state| state.pages >> (page % CHUNK_PAGES) & 1 == 1)
    }

    /// These pages were written back, so they are resident; unless that was the first half of dropping them.
    pub(super) fn written_back(&mut self, pages: &Range<u64>) {
        for (chunk, _) in parts(pages) {
            let start = u64::from(chunk) * CHUNK_PAGES;
            if self.chunks.get(chunk).is_some_and(|state| state.leaving == 0) {
                self.enter(&(pages.start.max(start)..pages.end.min(start + CHUNK_PAGES)));
            }
        }
    }

    /// A read of these pages waits for room.
    pub(super) fn park(&mut self, pages: &Range<u64>) {
        for (chunk, _) in parts(pages) {
            if let Some(state) = self.chunks.get_mut(chunk) {
                state.parked = state.parked.saturating_add(1);
            }
        }
    }

    /// A read of these pages waits no longer.
    pub(super) fn unpark(&mut self, pages: &Range<u64>) {
        for (chunk, _) in parts(pages) {
            if let Some(state) = self.chunks.get_mut(chunk) {
                state.parked = state.parked.saturating_sub(1);
            }
        }
    }

    /// This many pages to evict, fewer only if no more can go; by chunk.
    pub(super) fn victims(&mut self, pages: u64) -> Vec<Leaving> {
        let mut victims = BTreeMap::<u32, u32>::new();
        let mut found = 0;
        // Every pass takes a life from each page. A queue that has been passed through in vain leaves it to the other.
        let passes = usize::from(MAX_LEVEL) + 1;
        let mut steps = (self.probation.len() + self.kept.len()) * passes;
        let mut in_vain = [0; 2];
        while found < pages && steps > 0 {
            steps -= 1;
            let many = self.probation.len() as u64 > self.bound / PROBATION && in_vain[0] < self.probation.len();
            let others = in_vain[1] >= self.kept.len() * passes && !self.probation.is_empty();
            let on_probation = many || others;
            let queue = if on_probation { &mut self.probation } else { &mut self.kept };
            let Some(mut place) = queue.pop_front() else { break };
            let (chunk, bit) = ((place.page / CHUNK_PAGES) as u32, 1 << (place.page % CHUNK_PAGES));
            let Some(state) = self.chunks.get_mut(chunk) else { continue };
            if state.pages & bit == 0 {
                state.queued &= !bit;
            } else if place.lives > 0 || state.parked > 0 || state.leaving > 0 {
                place.lives = place.lives.saturating_sub(1);
                queue.push_back(place);
                in_vain[usize::from(!on_probation)] += 1;
            } else {
                state.queued &= !bit;
                self.remembered.insert(place.page, place.level);
                *victims.entry(chunk).or_default() |= bit;
                found += 1;
            }
        }
        victims.into_iter().map(|(chunk, mask)| self.leave(chunk, mask)).collect()
    }

    /// The pages of a range, to be dropped for another reason than room. Reads of these chunks pass until finished.
    ///
    /// Chunks with nothing resident and no read waiting are left out, so that a range may be as long as the file: what is
    /// read of them meanwhile finds room, or waits for the evictor.
    pub(super) fn take(&mut self, pages: &Range<u64>) -> Vec<Leaving> {
        if pages.is_empty() {
            return Vec::new();
        }
        let chunks = pages.start / CHUNK_PAGES..pages.end.div_ceil(CHUNK_PAGES);
        let holds = |&(_, state): &(u32, Chunk)| state.pages != 0 || state.parked > 0;
        let held: Vec<u32> = self.chunks.touched(chunks).filter(holds).map(|(chunk, _)| chunk).collect();
        held.into_iter().map(|chunk| self.leave(chunk, mask_of(chunk, pages))).collect()
    }

    /// Those of the leaving pages that were read again meanwhile.
    pub(super) fn known(&self, leaving: &Leaving) -> u64 {
        self.chunks.get(leaving.chunk).map_or(0, |state| u64::from((state.pages & leaving.pages).count_ones()))
    }

    fn leave(&mut self, chunk: u32, mask: u32) -> Leaving {
        let Some(state) = self.chunks.get_mut(chunk) else { return Leaving { chunk, pages: 0 } };
        let pages = state.pages & mask;
        state.pages &= !mask;
        state.leaving = state.leaving.saturating_add(1);
        Leaving { chunk, pages }
    }

    /// The kernel has dropped the pages, or, if they are `busy`, could not.
    pub(super) fn finish(&mut self, leaving: Leaving, busy: bool) {
        let Some(state) = self.chunks.get_mut(leaving.chunk) else { return };
        state.leaving = state.leaving.saturating_sub(1);
        self.resident -= leaving.count();
        if busy {
            leaving.runs().for_each(|run| self.enter(&run));
        }
    }
}

/// Whether two ranges have pages in the same chunk.
pub(super) fn share_chunk(one: &Range<u64>, other: &Range<u64>) -> bool {
    let chunks = |pages: &Range<u64>| pages.start / CHUNK_PAGES..pages.end.div_ceil(CHUNK_PAGES);
    let (one, other) = (chunks(one), chunks(other));
    one.start < other.end && other.start < one.end
}

/// A range of pages cut at chunk borders: chunk and mask of its pages.
fn parts(pages: &Range<u64>) -> impl Iterator<Item = (u32, u32)> + use<> {
    let pages = pages.clone();
    let chunks = if pages.is_empty() { 0..0 } else { pages.start / CHUNK_PAGES..pages.end.div_ceil(CHUNK_PAGES) };
    chunks.map(move |chunk| (chunk as u32, mask_of(chunk as u32, &pages)))
}

/// The pages of a chunk that are in a range, which has some.
fn mask_of(chunk: u32, pages: &Range<u64>) -> u32 {
    let first = u64::from(chunk) * CHUNK_PAGES;
    let from = pages.start.max(first) - first;
    let to = pages.end.min(first + CHUNK_PAGES) - first;
    ((u64::from(u32::MAX) >> (CHUNK_PAGES - (to - from))) << from) as u32
}

/// The runs of a mask of pages from `first` on.
fn runs(first: u64, mut mask: u32) -> impl Iterator<Item = Range<u64>> + use<> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let start = mask.trailing_zeros();
            let length = (mask >> start).trailing_ones();
            mask &= !((u64::from(u32::MAX) >> (32 - length)) << start) as u32;
            first + u64::from(start)..first + u64::from(start + length)
        })
    })
}

#[cfg(test)]
mod tests;
