//! The media: 4 KiB frames in one reserved mapping, and the pool of frames that are free.
//!
//! Address space is reserved once for as much media as the store can ever have. How much exists is a limit on how many
//! frames are held, so that media can grow and shrink while the store runs. Frames given back stay warm for a while,
//! then return to the host in batches.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;

use super::map::reserve;
use super::{BLOCK_SIZE, StoreError, count};

/// Bytes in a frame.
pub(super) const FRAME: usize = BLOCK_SIZE;
/// Free frames kept warm, at most (1 MiB).
const WARM: usize = 256;
/// Frames returned to the host at a time.
const BATCH: usize = 64;

/// Where the bytes of a slot are: up to `room` at offset `head` of the arena, the rest at `tail`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Offset of the first byte in the arena.
    pub(super) head: usize,
    /// Bytes from there to the end of the frame.
    pub(super) room: usize,
    /// Offset of the frame with the rest, if the slot straddles two.
    pub(super) tail: usize,
}

/// The frames and their owners.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: MmapRaw,
    pool: Mutex<Pool>,
    held: AtomicU64,
    limit: AtomicU64,
    metadata: AtomicU64,
}

#[derive(Debug)]
struct Pool {
    /// Free, backed by memory; the last given back is last.
    warm: Vec<u32>,
    /// Free, not backed.
    cold: Vec<u32>,
    /// Frames from here on were never used.
    fresh: u32,
}

impl Arena {
    /// Reserves room for `frames` frames. None exist until [`Arena::set_limit`].
    pub(super) fn new(frames: u64) -> Result<Self, StoreError> {
        Ok(Self {
            bytes: reserve(frames * FRAME as u64)?,
            pool: Mutex::new(Pool { warm: Vec::new(), cold: Vec::new(), fresh: 0 }),
            held: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            metadata: AtomicU64::new(0),
        })
    }

    /// Frames that exist.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Changes how many frames exist. More than were reserved count as those.
    pub(super) fn set_limit(&self, frames: u64) {
        let _pool = self.pool.lock();
        self.limit.store(frames.min((self.bytes.len() / FRAME) as u64), Relaxed);
    }

    /// Frames that slabs hold.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Frames that no slab holds.
    pub(super) fn free(&self) -> u64 {
        self.limit().saturating_sub(self.held())
    }

    /// Whether a frame could be taken now.
    pub(super) fn has_free(&self) -> bool {
        self.free() > 0
    }

    /// Bytes of the free lists.
    pub(super) fn metadata(&self) -> u64 {
        self.metadata.load(Relaxed)
    }

    /// The same, looked up.
    pub(super) fn recount_metadata(&self) -> u64 {
        self.pool.lock().metadata()
    }

    /// Takes a free frame, if there is one. Its contents are undefined.
    pub(super) fn take(&self) -> Option<u32> {
        let mut pool = self.pool.lock();
        if !self.has_free() {
            return None;
        }
        let frame = pool.warm.pop().or_else(|| pool.cold.pop()).unwrap_or_else(|| {
            // Every frame below `fresh` is held or free, so this one is below the limit and inside the mapping.
            pool.fresh += 1;
            pool.fresh - 1
        });
        count::add(&self.held, 1);
        Some(frame)
    }

    /// Gives a frame back.
    pub(super) fn give(&self, frame: u32) {
        let mut pool = self.pool.lock();
        count::sub(&self.held, 1);
        pool.warm.push(frame);
        if pool.warm.len() > WARM {
            self.cool(&mut pool);
        }
        self.metadata.store(pool.metadata(), Relaxed);
    }

    /// Returns the frames that were given back longest ago to the host, neighbours in one call.
    fn cool(&self, pool: &mut Pool) {
        let mut batch: Vec<u32> = pool.warm.drain(..BATCH).collect();
        batch.sort_unstable();
        for run in batch.chunk_by(|a, b| a + 1 == *b) {
            // SAFETY: no slab holds these frames, so their contents are unused, and the pool lock keeps
            // them from being taken meanwhile.
            let given = unsafe {
                self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, run[0] as usize * FRAME, run.len() * FRAME)
            };
            if let Err(error) = given {
                tracing::debug!(%error, "the host did not take frames back");
            }
        }
        pool.cold.append(&mut batch);
    }

    /// Copies `bytes` into a slot.
    ///
    /// # Safety
    /// The slot is live, at least `bytes` long, and the caller holds the leaf lock of its block.
    pub(super) unsafe fn store(&self, at: Span, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(at.room));
        // SAFETY: the slab hands out spans inside the mapping only; the leaf lock makes this the only access.
        unsafe {
            self.at(at.head, head.len()).copy_from_nonoverlapping(head.as_ptr(), head.len());
            self.at(at.tail, tail.len()).copy_from_nonoverlapping(tail.as_ptr(), tail.len());
        }
    }

    /// Copies the start of a slot into all of `bytes`.
    ///
    /// # Safety
    /// The slot is live, at least `bytes` long, and the caller holds the leaf lock of its block.
    pub(super) unsafe fn load(&self, at: Span, bytes: &mut [u8]) {
        let (head, tail) = bytes.split_at_mut(bytes.len().min(at.room));
        // SAFETY: as in `store`.
        unsafe {
            self.at(at.head, head.len()).copy_to_nonoverlapping(head.as_mut_ptr(), head.len());
            self.at(at.tail, tail.len()).copy_to_nonoverlapping(tail.as_mut_ptr(), tail.len());
        }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.bytes.len()), "a span lies inside the arena");
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.bytes.as_mut_ptr().add(offset) }
    }
}

impl Pool {
    fn metadata(&self) -> u64 {
        ((self.warm.capacity() + self.cold.capacity()) * size_of::<u32>()) as u64
    }
}
