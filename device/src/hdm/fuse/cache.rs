//! Which pages of the window are resident, and which chunk to give up next: CLOCK by invalidation.
//!
//! The kernel does not report how often a resident page is used, only that it had to be read. So a chunk's reference bit
//! is the refault: a chunk that is read again soon after it was evicted was hot, and is passed over the next times. Pure
//! data, no system calls; the caller brings the lock.

use std::{collections::VecDeque, ops::Range};

use super::chunks::Chunks;

/// Pages in a chunk, the unit of eviction: 128 KiB, what the kernel reads ahead at most.
pub(super) const CHUNK_PAGES: u64 = 32;

/// Times a chunk with the best record is passed over.
const MAX_LEVEL: u8 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    /// Resident pages, bit n for page n.
    pages: u32,
    /// Evictions under way. Reads of such a chunk must not wait for room: the eviction waits for them.
    leaving: u8,
    /// Reads that wait for room. The chunk must not be evicted: the eviction would wait for them.
    parked: u8,
    /// How often it has come back soon.
    level: u8,
    /// How often it is still passed over.
    lives: u8,
    /// Whether it is in the ring.
    queued: bool,
    /// Value of the eviction counter when it was evicted last; 0 for never.
    evicted_at: u64,
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
    ring: VecDeque<u32>,
    resident: u64,
    bound: u64,
    evictions: u64,
}

impl Cache {
    /// An empty cache for a file of this many pages.
    pub(super) fn new(file_pages: u64, bound: u64) -> Self {
        Self {
            chunks: Chunks::new(file_pages.div_ceil(CHUNK_PAGES) as usize),
            ring: VecDeque::new(),
            resident: 0,
            bound,
            evictions: 0,
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

    /// Room kept free ahead of demand, so that reads seldom wait.
    fn reserve(&self) -> u64 {
        (self.bound / 16).max(1)
    }

    /// Pages to evict now; 0 as long as there is room to spare. `urgent`: a read waits.
    pub(super) fn excess(&self, urgent: bool) -> u64 {
        if urgent || self.resident > self.bound.saturating_sub(self.reserve()) {
            self.resident.saturating_sub(self.bound.saturating_sub(2 * self.reserve()))
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

    /// These pages become resident.
    pub(super) fn fault(&mut self, pages: &Range<u64>) {
        for (chunk, mask) in parts(pages) {
            let around = self.ring.len() as u64;
            let Some(state) = self.chunks.get_mut(chunk) else { continue };
            self.resident += u64::from((mask & !state.pages).count_ones());
            if state.pages == 0 && state.leaving == 0 {
                // Soon: within as many evictions as there are chunks resident, what LRU would call a near miss.
                let soon = state.evicted_at != 0 && self.evictions - state.evicted_at <= around;
                state.level = if soon { (state.level + 1).min(MAX_LEVEL) } else { 0 };
                state.lives = state.level;
            }
            state.pages |= mask;
            if !state.queued {
                state.queued = true;
                self.ring.push_back(chunk);
            }
        }
    }

    /// These pages were written back, so they are resident; unless that was the first half of dropping them.
    pub(super) fn written_back(&mut self, pages: &Range<u64>) {
        for (chunk, _) in parts(pages) {
            let start = u64::from(chunk) * CHUNK_PAGES;
            if self.chunks.get(chunk).is_some_and(|state| state.leaving == 0) {
                self.fault(&(pages.start.max(start)..pages.end.min(start + CHUNK_PAGES)));
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

    /// Chunks to evict, together at least `pages` pages if that many can go, at most `most` chunks.
    pub(super) fn victims(&mut self, pages: u64, most: usize) -> Vec<Leaving> {
        let mut victims = Vec::new();
        let mut found = 0;
        // Every pass takes a life from each chunk, so this many steps visit every chunk without one.
        let mut steps = self.ring.len() * (usize::from(MAX_LEVEL) + 1);
        while found < pages && victims.len() < most && steps > 0 {
            steps -= 1;
            let Some(chunk) = self.ring.pop_front() else { break };
            let Some(state) = self.chunks.get_mut(chunk) else { continue };
            if state.pages == 0 {
                state.queued = false;
            } else if state.lives > 0 || state.parked > 0 || state.leaving > 0 {
                state.lives = state.lives.saturating_sub(1);
                self.ring.push_back(chunk);
            } else {
                state.queued = false;
                self.evictions += 1;
                state.evicted_at = self.evictions;
                let leaving = self.leave(chunk, u32::MAX);
                found += leaving.count();
                victims.push(leaving);
            }
        }
        victims
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

    /// Pages of a leaving chunk that were read again meanwhile.
    pub(super) fn known(&self, leaving: &Leaving) -> u64 {
        self.chunks.get(leaving.chunk).map_or(0, |state| u64::from(state.pages.count_ones()))
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
        if busy && leaving.pages != 0 {
            self.resident += u64::from((leaving.pages & !state.pages).count_ones());
            state.pages |= leaving.pages;
            if !state.queued {
                state.queued = true;
                self.ring.push_back(leaving.chunk);
            }
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

#[cfg(test)]
mod tests;
