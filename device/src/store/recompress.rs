//! Recompression: cold blocks change from lz4 or raw to zstd, in small steps, while the store is in use.
//!
//! A pass is one walk over the map. A block it finds [`Age::Fresh`] becomes [`Age::Cold`]; one it finds cold was not
//! written for a whole pass, and is compressed again. It is kept so if its class becomes smaller; otherwise it is
//! [`Age::Settled`] as it is, and no pass tries it before the next write.
//!
//! No lock is held while a block is compressed. A write makes it fresh and only a pass makes it cold, one pass at a
//! time: a block that is still cold afterwards has not been written meanwhile, not even into the same slot.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::{
    BLOCK_SIZE, Codec, Step, Store,
    arena::Span,
    codec, count,
    entry::{Age, Entry, Form, Stored},
    map::Leaf,
    slab::{CLASSES, Class, Slab},
};

/// What recompression came to since the store was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recompressed {
    /// Blocks that changed to the stronger codec. One that is written and turns cold again counts again.
    pub blocks: u64,
    /// Payload bytes they became shorter by.
    pub saved: u64,
}

/// What one step of recompression did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecompressStep {
    /// The block to continue from; None when the pass is over.
    pub next: Option<u64>,
    /// Blocks compressed again, kept so or not.
    pub tried: usize,
    /// Of these, blocks that changed.
    pub changed: usize,
    /// Payload bytes they became shorter by.
    pub saved: u64,
}

impl Store {
    /// One step of a pass, from block `from` (0 begins a pass): at most one leaf of the map, and at most `tries`
    /// blocks (one if 0) compressed again. May be called at any time from any thread; contents never change and no
    /// block is lost. While fewer than 128 frames are free, the slabs never need more frames, holes compacted, for it.
    /// Nothing to do unless the codec is [`Codec::Adaptive`].
    pub fn recompress(&self, from: u64, tries: usize) -> RecompressStep {
        let mut done = RecompressStep::default();
        let Codec::Adaptive(level) = self.codec else { return done };
        let _one_at_a_time = self.recompressing.lock();
        let Some(mut part) = self.map.touched(from..self.blocks()).next() else { return done };
        while done.tried < tries.max(1)
            && let Some((block, cold, leaf)) = self.next_cold(&mut part)
        {
            done.tried += 1;
            if let Some(saved) = self.recompress_block(level, block, cold, leaf) {
                done.changed += 1;
                done.saved += saved;
            }
        }
        count::add(&self.counts.recompressed, done.changed as u64);
        count::add(&self.counts.recompressed_saved, done.saved);
        done.next = (part.start < self.blocks()).then_some(part.start);
        done
    }

    /// What recompression came to so far.
    pub fn recompressed(&self) -> Recompressed {
        Recompressed {
            blocks: self.counts.recompressed.load(Relaxed),
            saved: self.counts.recompressed_saved.load(Relaxed),
        }
    }

    /// Takes blocks of one leaf from `part` until one is cold; those that are fresh become cold for the next pass.
    fn next_cold(&self, part: &mut Range<u64>) -> Option<(u64, Stored, Leaf<'_>)> {
        if part.is_empty() {
            return None;
        }
        let mut leaf = self.map.lock(part.start);
        for block in part {
            if let Entry::Stored(stored) = leaf.get(block) {
                match stored.age {
                    Age::Fresh => leaf.set(block, Entry::Stored(Stored { age: Age::Cold, ..stored })),
                    Age::Cold => return Some((block, stored, leaf)),
                    Age::Settled => {}
                }
            }
        }
        None
    }

    /// Compresses a cold block again. The bytes saved, if it changed.
    fn recompress_block(&self, level: i32, block: u64, cold: Stored, leaf: Leaf<'_>) -> Option<u64> {
        let at = self.slab(Class::of(cold.len)).lock().span(cold.slot)?;
        codec::with(|engine| {
            // SAFETY: the leaf lock is held and its entry names this slot and length.
            unsafe { self.arena.load(at, engine.payload(cold.len)) };
            drop(leaf);
            let mut data = [0; BLOCK_SIZE];
            // A block that does not decompress is reported when it is read, not here.
            let Some(()) = engine.unpack(cold.form, cold.len, &mut data) else {
                self.settle(block);
                return None;
            };
            let (form, payload) = engine.pack(Codec::Zstd(level), &data);
            if form == Form::Zstd && Class::of(payload.len()).index() < Class::of(cold.len).index() {
                self.replace(block, payload)
            } else {
                self.settle(block);
                None
            }
        })
    }

    /// The entry of a block that is still cold, its leaf locked.
    fn still_cold(&self, block: u64) -> Option<(Stored, Leaf<'_>)> {
        let leaf = self.map.lock(block);
        match leaf.get(block) {
            Entry::Stored(stored) if stored.age == Age::Cold => Some((stored, leaf)),
            _ => None,
        }
    }

    /// Leaves a block as it is until it is written again.
    fn settle(&self, block: u64) {
        if let Some((stored, mut leaf)) = self.still_cold(block) {
            leaf.set(block, Entry::Stored(Stored { age: Age::Settled, ..stored }));
        }
    }

    /// Puts a shorter zstd payload in the place of a block's, if it is still cold (then compaction may have moved it,
    /// but no more) and there is room. Otherwise it stays as it is and cold: the next pass tries again.
    fn replace(&self, block: u64, payload: &[u8]) -> Option<u64> {
        let (old, mut leaf) = self.still_cold(block)?;
        let (from, to) = (Class::of(old.len), Class::of(payload.len()));
        let (place, loose) = match self.alloc_smaller(block, from, to)? {
            Room::Slot(slot, at) => ((slot, at), self.clear(&mut leaf, block)),
            Room::NoFrame => (self.swap_frame(block, from, to, &mut leaf)?, None),
        };
        let (slot, at) = place;
        // SAFETY: the slot is live and of the payload's class, and the leaf of its block is locked.
        unsafe { self.arena.store(at, payload) };
        let new = Stored::new(slot, payload.len(), Form::Zstd);
        leaf.set(block, Entry::Stored(new));
        self.count_in(new);
        drop(leaf);
        self.tidy(loose);
        Some(old.len as u64 - new.len as u64)
    }

    /// A slot in class `to` for a block of class `from`, whose leaf is locked. None if the slabs would need a frame more
    /// for it and few are left.
    fn alloc_smaller(&self, block: u64, from: Class, to: Class) -> Option<Room> {
        // Here are two slab locks held, and only here and in `swap_frame`: `recompressing` lets one thread in.
        let (giver, mut taker) = (self.slab(from).lock(), self.slab(to).lock());
        // A slab that takes a frame early pays it back: all of them together owe less than a frame each.
        if self.arena.free() < CLASSES as u64 && taker.would_take_frame() && !giver.would_give_frame() {
            return None;
        }
        let place = taker.alloc(block as u32, &self.arena, &self.counts.slab_metadata);
        Some(place.map_or(Room::NoFrame, |(slot, at)| Room::Slot(slot, at)))
    }

    /// When no frame is free: frees the slot of a block, and takes the frame that its slab can then do without for a
    /// slot in class `to`. The block's leaf is locked; its entry is left empty.
    fn swap_frame(&self, block: u64, from: Class, to: Class, leaf: &mut Leaf<'_>) -> Option<(u32, Span)> {
        while self.step(from, Slab::has_holes, Some(leaf)) == Step::Moved {}
        let (mut giver, mut taker) = (self.slab(from).lock(), self.slab(to).lock());
        // Others may have made room there meanwhile: then nothing need be swapped, and the next pass will see.
        if taker.has_holes() || !taker.would_take_frame() {
            return None;
        }
        // Compaction may have moved the block itself.
        let Entry::Stored(old) = leaf.get(block) else { return None };
        let (last, owner) = giver.giveable()?;
        let place = {
            let mut other = self.map.try_lock(owner.into(), Some(leaf))?;
            let Entry::Stored(moved) = other.get(owner.into()) else { return None };
            if moved.slot != last || Class::of(moved.len) != from {
                return None;
            }
            // SAFETY: the slab is locked since it named this slot, and so are the leaves of both blocks.
            let place =
                unsafe { giver.hand_over(old.slot, moved.len, &mut taker, &self.arena, &self.counts.slab_metadata) }?;
            if last != old.slot {
                other.set(owner.into(), Entry::Stored(Stored { slot: old.slot, ..moved }));
                count::add(&self.counts.moved, moved.len as u64);
            }
            place
        };
        leaf.set(block, Entry::Empty);
        self.count_out(old);
        Some(place)
    }
}

/// What a class has for a block.
enum Room {
    /// A slot.
    Slot(u32, Span),
    /// It needs a frame and none is free.
    NoFrame,
}
