//! The store: 4 KiB blocks in, compressed bytes in a bounded arena out.
//!
//! Blocks are numbered from 0; a block that was never written, or was trimmed, reads as zeros and holds no media.
//! All methods take `&self` and may be called from many threads; calls on one block are serialised inside.

mod arena;
mod codec;
mod count;
mod entry;
mod map;
mod recompress;
mod slab;
mod usage;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use arena::{Arena, Span};
pub use codec::CodecError;
pub(crate) use codec::{Engine, fill_word};
pub(crate) use entry::Form;
use entry::{Entry, Stored};
pub(crate) use map::ENTRY_BYTES as MAP_ENTRY;
use map::{BlockMap, Leaf};
pub use recompress::{RecompressStep, Recompressed};
use slab::{Class, MAX_BLOCKS, Slab};
pub(crate) use slab::{POINTER, STEP};
pub use usage::{Ratio, Usage};

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;

/// The contents of one block.
pub type Block = [u8; BLOCK_SIZE];

/// How blocks are compressed. Parsed from `lz4`, `zstd` (level 1), `zstd:LEVEL`, `adaptive` (level 3) or
/// `adaptive:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// LZ4 block format (lz4_flex).
    Lz4,
    /// Zstandard at this level.
    Zstd(i32),
    /// LZ4 for new blocks; [`Store::recompress`] turns cold ones into Zstandard at this level.
    Adaptive(i32),
}

/// What a store is made from.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Blocks that can be addressed: capacity / [`BLOCK_SIZE`].
    pub blocks: u64,
    /// Bytes of media that exist, a multiple of [`BLOCK_SIZE`] (one frame). More than the capacity has no use: it is
    /// cut to that.
    pub physical: u64,
    /// The codec for new blocks.
    pub codec: Codec,
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
    /// More blocks than the map can distinguish.
    #[error("{blocks} blocks are too many: the store can address {max} (8 TiB); choose a smaller capacity")]
    TooManyBlocks {
        /// Blocks asked for.
        blocks: u64,
        /// The most there can be.
        max: u64,
    },
    /// The arena or the block map could not be mapped.
    #[error("cannot reserve {bytes} bytes of address space for the store; choose a smaller capacity")]
    Arena {
        /// Bytes asked for.
        bytes: u64,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The store.
#[derive(Debug)]
pub struct Store {
    codec: Codec,
    map: BlockMap,
    arena: Arena,
    /// One a class.
    slabs: Box<[Mutex<Slab>]>,
    /// Held for a step of recompression: one at a time.
    recompressing: Mutex<()>,
    counts: Counts,
}

/// The running counters behind [`Usage`].
#[derive(Debug, Default)]
struct Counts {
    data: AtomicU64,
    compressed: AtomicU64,
    raw: AtomicU64,
    same_filled: AtomicU64,
    slab_metadata: AtomicU64,
    moved: AtomicU64,
    recompressed: AtomicU64,
    recompressed_saved: AtomicU64,
}

/// What one step of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A slot moved.
    Moved,
    /// Nothing left to do in this slab.
    Done,
    /// The block that would move is in use by another thread.
    Busy,
}

/// Slots that one write may move. Two, so that compaction is faster than what makes holes.
const MOVES_PER_WRITE: usize = 2;
/// How often a write that finds no frame tries again when other threads hold what it would move.
const RECLAIM_ROUNDS: usize = 64;

impl Store {
    /// An empty store. Takes address space for the whole capacity, memory only for what is written.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        if config.blocks > MAX_BLOCKS {
            return Err(StoreError::TooManyBlocks { blocks: config.blocks, max: MAX_BLOCKS });
        }
        let store = Self {
            codec: config.codec,
            map: BlockMap::new(config.blocks)?,
            arena: Arena::new(config.blocks)?,
            slabs: Class::all().map(|class| Mutex::new(Slab::new(class))).collect(),
            recompressing: Mutex::new(()),
            counts: Counts::default(),
        };
        store.set_physical(config.physical);
        Ok(store)
    }

    /// An empty store of the same size, physical size and codec. What is counted since the start goes on.
    pub fn renewed(&self) -> Result<Self, StoreError> {
        let physical = self.arena.limit() * BLOCK_SIZE as u64;
        let mut fresh = Self::new(&StoreConfig { blocks: self.blocks(), physical, codec: self.codec })?;
        let recompressed = self.recompressed();
        fresh.counts = Counts {
            moved: self.moved().into(),
            recompressed: recompressed.blocks.into(),
            recompressed_saved: recompressed.saved.into(),
            ..Counts::default()
        };
        Ok(fresh)
    }

    /// Blocks that can be addressed.
    pub fn blocks(&self) -> u64 {
        self.map.blocks()
    }

    /// The codec for new blocks.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Replaces the contents of a block. On [`StoreError::Full`] the earlier contents are freed too.
    pub fn write(&self, block: u64, data: &Block) -> Result<(), StoreError> {
        self.check(block)?;
        match codec::fill_word(data).filter(|word| Entry::can_hold(*word)) {
            Some(word) => {
                self.fill(block, Entry::Fill(word));
                Ok(())
            }
            None => codec::with(|engine| {
                let (form, payload) = engine.pack(self.codec, data);
                self.put(block, form, payload)
            }),
        }
    }

    /// Reads a block; zeros if it was never written.
    pub fn read(&self, block: u64, out: &mut Block) -> Result<(), StoreError> {
        self.check(block)?;
        let leaf = self.map.lock(block);
        match leaf.get(block) {
            Entry::Empty => out.fill(0),
            Entry::Fill(word) => out.as_chunks_mut().0.fill(word.to_ne_bytes()),
            Entry::Stored(Stored { slot, len, form, .. }) => {
                let corrupt = StoreError::Corrupt { block };
                let Some(at) = self.slab(Class::of(len)).lock().span(slot) else { return Err(corrupt) };
                if form == Form::Raw {
                    // SAFETY: the leaf lock is held and its entry names this slot and length.
                    unsafe { self.arena.load(at, &mut out[..len]) };
                    return Ok(());
                }
                return codec::with(|engine| {
                    // SAFETY: as above.
                    unsafe { self.arena.load(at, engine.payload(len)) };
                    // The payload is copied, so other threads may proceed while it is decompressed.
                    drop(leaf);
                    engine.unpack(form, len, out).ok_or(corrupt)
                });
            }
        }
        Ok(())
    }

    /// Forgets blocks; they read as zeros and hold no media. A range past the end is refused whole.
    pub fn trim(&self, blocks: Range<u64>) -> Result<(), StoreError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.check(blocks.end - 1)?;
        for part in self.map.touched(blocks) {
            let mut leaf = self.map.lock(part.start);
            for block in part.clone() {
                self.clear(&mut leaf, block);
            }
            leaf.give_back(part);
        }
        // Not one by one, as a write does: blocks that are about to be trimmed would be moved for nothing.
        for class in Class::all() {
            self.compact(class, usize::MAX);
        }
        Ok(())
    }

    /// What the store holds now, from running counters: O(1). Exact when no call is under way.
    pub fn usage(&self) -> Usage {
        Usage {
            physical: self.arena.limit() * BLOCK_SIZE as u64,
            used: self.arena.held() * BLOCK_SIZE as u64,
            data: self.counts.data.load(Relaxed),
            metadata: self.map.metadata()
                + self.arena.metadata()
                + self.counts.slab_metadata.load(Relaxed)
                + size_of_val(&*self.slabs) as u64,
            compressed_blocks: self.counts.compressed.load(Relaxed),
            raw_blocks: self.counts.raw.load(Relaxed),
            same_filled_blocks: self.counts.same_filled.load(Relaxed),
        }
    }

    /// The same figures by a walk over map and slabs, for checks: O(blocks). A block counts as stored only if its map
    /// entry and the back-pointer of its slot agree. Exact when no call is under way.
    pub fn recount(&self) -> Usage {
        let mut usage = Usage {
            physical: self.arena.limit() * BLOCK_SIZE as u64,
            metadata: self.map.recount_metadata() + self.arena.recount_metadata() + size_of_val(&*self.slabs) as u64,
            ..Usage::default()
        };
        for class in Class::all() {
            let slab = self.slab(class).lock();
            usage.used += slab.frames() * BLOCK_SIZE as u64;
            usage.metadata += slab.metadata();
            let live: Vec<_> = slab.live().collect();
            drop(slab);
            for (slot, block) in live {
                match self.map.lock(block.into()).get(block.into()) {
                    Entry::Stored(stored) if stored.slot == slot && Class::of(stored.len) == class => {
                        usage.data += stored.len as u64;
                        match stored.form {
                            Form::Raw => usage.raw_blocks += 1,
                            Form::Lz4 | Form::Zstd => usage.compressed_blocks += 1,
                        }
                    }
                    _ => {}
                }
            }
        }
        for part in self.map.touched(0..self.blocks()) {
            let leaf = self.map.lock(part.start);
            usage.same_filled_blocks += part.filter(|block| matches!(leaf.get(*block), Entry::Fill(_))).count() as u64;
        }
        usage
    }

    /// Payload bytes that compaction has moved since the store was made.
    pub fn moved(&self) -> u64 {
        self.counts.moved.load(Relaxed)
    }

    /// Changes how much media exists. Shrinking below what is used loses nothing: writes that need another frame are
    /// refused until it fits. Returns the physical size now in force: whole frames, at most the capacity.
    pub fn set_physical(&self, bytes: u64) -> u64 {
        let frames = (bytes / BLOCK_SIZE as u64).min(self.blocks());
        self.arena.set_limit(frames);
        frames * BLOCK_SIZE as u64
    }

    fn check(&self, block: u64) -> Result<(), StoreError> {
        let blocks = self.blocks();
        if block < blocks { Ok(()) } else { Err(StoreError::OutOfRange { block, blocks }) }
    }

    fn slab(&self, class: Class) -> &Mutex<Slab> {
        &self.slabs[class.index()]
    }

    /// Makes a block one that holds no media.
    fn fill(&self, block: u64, entry: Entry) {
        let mut leaf = self.map.lock(block);
        let loose = self.clear(&mut leaf, block);
        leaf.set(block, entry);
        count::add(&self.counts.same_filled, 1);
        drop(leaf);
        self.tidy(loose);
    }

    /// Stores a payload as the new contents of a block.
    fn put(&self, block: u64, form: Form, payload: &[u8]) -> Result<(), StoreError> {
        let class = Class::of(payload.len());
        let mut leaf = self.map.lock(block);
        let (place, loose) = match leaf.get(block) {
            Entry::Stored(old) if Class::of(old.len) == class => {
                // The old slot will do. It stays live while the leaf is locked.
                self.count_out(old);
                (self.slab(class).lock().span(old.slot).map(|at| (old.slot, at)), None)
            }
            _ => {
                let loose = self.clear(&mut leaf, block);
                (self.alloc(class, block, &leaf), loose)
            }
        };
        let Some((slot, at)) = place else {
            return Err(StoreError::Full { block, needed: payload.len() });
        };
        // SAFETY: the slot is live and of the payload's class, and the leaf of its block is locked.
        unsafe { self.arena.store(at, payload) };
        let stored = Stored::new(slot, payload.len(), form);
        leaf.set(block, Entry::Stored(stored));
        self.count_in(stored);
        drop(leaf);
        self.tidy(loose);
        Ok(())
    }

    /// Empties a block. Returns its old class if that slab should now be compacted.
    fn clear(&self, leaf: &mut Leaf<'_>, block: u64) -> Option<Class> {
        let entry = leaf.get(block);
        leaf.set(block, Entry::Empty);
        match entry {
            Entry::Empty => None,
            Entry::Fill(_) => {
                count::sub(&self.counts.same_filled, 1);
                None
            }
            Entry::Stored(old) => {
                self.count_out(old);
                let class = Class::of(old.len);
                let mut slab = self.slab(class).lock();
                slab.free(old.slot, &self.arena, &self.counts.slab_metadata);
                slab.is_loose().then_some(class)
            }
        }
    }

    /// A slot for a block whose leaf is locked. If no frame is free, squeezes the slabs until one is.
    fn alloc(&self, class: Class, block: u64, leaf: &Leaf<'_>) -> Option<(u32, Span)> {
        for _ in 0..RECLAIM_ROUNDS {
            let place = self.slab(class).lock().alloc(block as u32, &self.arena, &self.counts.slab_metadata);
            if place.is_some() {
                return place;
            }
            match self.reclaim(leaf) {
                Step::Moved => {}
                Step::Done => return None,
                Step::Busy => std::thread::yield_now(),
            }
        }
        None
    }

    /// Moves slots of slabs that could do with a frame less, until a frame is free.
    fn reclaim(&self, leaf: &Leaf<'_>) -> Step {
        let mut outcome = Step::Done;
        for class in Class::all() {
            loop {
                if self.arena.has_free() {
                    return Step::Moved;
                }
                match self.step(class, Slab::has_slack, Some(leaf)) {
                    Step::Moved => {}
                    Step::Done => break,
                    Step::Busy => {
                        outcome = Step::Busy;
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// Compacts the slab that a write has left with too many holes.
    fn tidy(&self, loose: Option<Class>) {
        if let Some(class) = loose {
            self.compact(class, MOVES_PER_WRITE);
        }
    }

    /// Moves at most `moves` slots of a slab while it has too many holes. What is busy is left to the next write.
    fn compact(&self, class: Class, moves: usize) {
        for _ in 0..moves {
            if self.step(class, Slab::is_loose, None) != Step::Moved {
                break;
            }
        }
    }

    /// Moves the last slot of a slab into a hole, if `wanted`. `held` is the leaf this thread has locked.
    fn step(&self, class: Class, wanted: fn(&Slab) -> bool, held: Option<&Leaf<'_>>) -> Step {
        let mut slab = self.slab(class).lock();
        if !wanted(&slab) {
            return Step::Done;
        }
        let Some((from, block)) = slab.movable() else { return Step::Done };
        // Elsewhere leaves are locked before slabs, so this must not wait.
        let Some(mut leaf) = self.map.try_lock(block.into(), held) else { return Step::Busy };
        let Entry::Stored(stored) = leaf.get(block.into()) else { return Step::Busy };
        if stored.slot != from || Class::of(stored.len) != class {
            return Step::Busy;
        }
        // SAFETY: the slab is locked since it named this slot, and so is the leaf of its block.
        let moved = unsafe { slab.move_last(stored.len, &self.arena, &self.counts.slab_metadata) };
        let Some(slot) = moved else { return Step::Done };
        leaf.set(block.into(), Entry::Stored(Stored { slot, ..stored }));
        count::add(&self.counts.moved, stored.len as u64);
        Step::Moved
    }

    fn count_in(&self, stored: Stored) {
        count::add(&self.counts.data, stored.len as u64);
        count::add(self.counter(stored.form), 1);
    }

    fn count_out(&self, stored: Stored) {
        count::sub(&self.counts.data, stored.len as u64);
        count::sub(self.counter(stored.form), 1);
    }

    fn counter(&self, form: Form) -> &AtomicU64 {
        match form {
            Form::Raw => &self.counts.raw,
            Form::Lz4 | Form::Zstd => &self.counts.compressed,
        }
    }
}
