//! The block map: 8 bytes a block in one lazily backed mapping.
//!
//! A *leaf* is one page of the map: 512 entries, 2 MiB of capacity. The kernel backs it when its first entry is
//! written; a bitmap remembers which leaves are, so that trim skips the others. Leaves share striped locks. A block's
//! leaf lock also guards the bytes of its slot: its holder may read, write or move them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use parking_lot::{Mutex, MutexGuard};

use super::entry::Entry;
use super::{StoreError, count};

/// Entries in a leaf.
pub(super) const LEAF_BLOCKS: u64 = 512;
/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: u64 = size_of::<u64>() as u64;
/// Bytes of a leaf: one host page.
const LEAF_BYTES: u64 = LEAF_BLOCKS * ENTRY_BYTES;
/// Leaf locks. Neighbouring leaves never share one.
const STRIPES: u64 = 256;

/// A lock with a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(Mutex<()>);

/// The map.
#[derive(Debug)]
pub(super) struct BlockMap {
    entries: MmapRaw,
    blocks: u64,
    /// One bit a leaf: backed by memory.
    touched: Box<[AtomicU64]>,
    touched_leaves: AtomicU64,
    stripes: Box<[Stripe]>,
}

/// Exclusive access to the entries of one leaf (and of every leaf of the same stripe).
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    map: &'a BlockMap,
    stripe: u64,
    /// None when the lock is another `Leaf`'s, which this one borrows.
    _lock: Option<MutexGuard<'a, ()>>,
}

impl BlockMap {
    /// A map of `blocks` empty entries. Takes address space only.
    pub(super) fn new(blocks: u64) -> Result<Self, StoreError> {
        let leaves = blocks.div_ceil(LEAF_BLOCKS);
        let entries = reserve(leaves * LEAF_BYTES)?;
        Ok(Self {
            entries,
            blocks,
            touched: (0..leaves.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            touched_leaves: AtomicU64::new(0),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
        })
    }

    /// Blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes of host memory behind the map.
    pub(super) fn metadata(&self) -> u64 {
        self.touched_leaves.load(Relaxed) * LEAF_BYTES + self.fixed_metadata()
    }

    /// The same by a walk over the bitmap.
    pub(super) fn recount_metadata(&self) -> u64 {
        let leaves: u64 = self.touched.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum();
        leaves * LEAF_BYTES + self.fixed_metadata()
    }

    fn fixed_metadata(&self) -> u64 {
        (size_of_val(&*self.touched) + size_of_val(&*self.stripes)) as u64
    }

    /// Locks the leaf of `block`.
    pub(super) fn lock(&self, block: u64) -> Leaf<'_> {
        let stripe = stripe_of(block);
        Leaf { map: self, stripe, _lock: Some(self.stripes[stripe as usize].0.lock()) }
    }

    /// Locks the leaf of `block` without waiting, so that it may be called with a slab lock held. `held` is the leaf
    /// the caller has locked already, if any: the block may be in it.
    pub(super) fn try_lock<'a>(&'a self, block: u64, held: Option<&'a Leaf<'_>>) -> Option<Leaf<'a>> {
        let stripe = stripe_of(block);
        if held.is_some_and(|held| held.stripe == stripe) {
            return Some(Leaf { map: self, stripe, _lock: None });
        }
        let lock = self.stripes[stripe as usize].0.try_lock()?;
        Some(Leaf { map: self, stripe, _lock: Some(lock) })
    }

    /// The part of `blocks` that lies in touched leaves, cut at leaf borders, in order.
    pub(super) fn touched(&self, blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = blocks.end.min(self.blocks);
        let mut at = blocks.start;
        std::iter::from_fn(move || {
            while at < end {
                let leaf = at / LEAF_BLOCKS;
                let ahead = self.touched[(leaf / 64) as usize].load(Relaxed) >> (leaf % 64);
                if ahead & 1 == 1 {
                    let part = at..end.min((leaf + 1) * LEAF_BLOCKS);
                    at = part.end;
                    return Some(part);
                }
                let skip = u64::from(ahead.trailing_zeros()).min(64 - leaf % 64);
                at = (leaf + skip) * LEAF_BLOCKS;
            }
            None
        })
    }

    fn entry(&self, block: u64) -> &AtomicU64 {
        assert!(block < self.blocks, "callers check the range");
        // SAFETY: the mapping holds `blocks` (rounded up) aligned 8-byte entries, lives as long as `self`, and every
        // access to it is atomic. Zero pages that replace a given-back leaf are valid entries.
        unsafe { &*self.entries.as_mut_ptr().cast::<AtomicU64>().add(block as usize) }
    }
}

impl Leaf<'_> {
    /// The entry of a block of this stripe.
    pub(super) fn get(&self, block: u64) -> Entry {
        debug_assert_eq!(stripe_of(block), self.stripe);
        Entry::decode(self.map.entry(block).load(Relaxed))
    }

    /// Replaces the entry of a block of this stripe.
    pub(super) fn set(&mut self, block: u64, entry: Entry) {
        debug_assert_eq!(stripe_of(block), self.stripe);
        let leaf = block / LEAF_BLOCKS;
        let (word, bit) = (&self.map.touched[(leaf / 64) as usize], 1 << (leaf % 64));
        if word.load(Relaxed) & bit == 0 {
            if entry == Entry::Empty {
                return;
            }
            word.fetch_or(bit, Relaxed);
            count::add(&self.map.touched_leaves, 1);
        }
        self.map.entry(block).store(entry.encode(), Relaxed);
    }

    /// Gives the page of a leaf back to the host if `blocks` is the whole of it. All its entries must be empty.
    pub(super) fn give_back(&mut self, blocks: Range<u64>) {
        let leaf = blocks.start / LEAF_BLOCKS;
        let whole = leaf * LEAF_BLOCKS..((leaf + 1) * LEAF_BLOCKS).min(self.map.blocks);
        if blocks != whole || stripe_of(blocks.start) != self.stripe {
            return;
        }
        let (word, bit) = (&self.map.touched[(leaf / 64) as usize], 1 << (leaf % 64));
        // Who finds a leaf touched has not locked it yet: another thread may have given it back since.
        if word.load(Relaxed) & bit == 0 {
            return;
        }
        // SAFETY: the range is one whole leaf of this mapping; it becomes zeros, which is what its empty entries are.
        let given = unsafe {
            self.map.entries.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                (leaf * LEAF_BYTES) as usize,
                LEAF_BYTES as usize,
            )
        };
        if given.is_ok() {
            word.fetch_and(!bit, Relaxed);
            count::sub(&self.map.touched_leaves, 1);
        }
    }
}

fn stripe_of(block: u64) -> u64 {
    block / LEAF_BLOCKS % STRIPES
}

/// Reserves `bytes` of zeroed address space that takes memory only as pages are touched, page by page.
pub(super) fn reserve(bytes: u64) -> Result<MmapRaw, StoreError> {
    let arena_error = |source| StoreError::Arena { bytes, source };
    let len = usize::try_from(bytes.max(1)).map_err(|_| arena_error(std::io::ErrorKind::OutOfMemory.into()))?;
    let map = MmapOptions::new().len(len).no_reserve_swap().map_anon().map_err(arena_error)?;
    // Huge pages would take 2 MiB where 4 KiB are accounted. A kernel without them refuses the advice: as good.
    let _ = map.advise(Advice::NoHugePage);
    Ok(MmapRaw::from(map))
}
