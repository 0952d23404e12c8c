//! Slabs: one a size class, each a dense run of equal slots over frames that need not be adjacent.
//!
//! A slab grows and shrinks at its end, one frame at a time; a slot may straddle two frames. So the only media lost is
//! the rounding to the class size, part of the last frame, and *holes*: free slots before the end. New blocks fill
//! holes first. When there are more than [`Slab::allowance`], compaction moves the last slot into one.

use std::sync::atomic::AtomicU64;

use super::arena::{Arena, FRAME, Span};
use super::count;

/// Slot sizes are multiples of this many bytes.
pub(crate) const STEP: usize = 32;
/// Bytes of a back-pointer, and of an entry in the list of frames.
pub(crate) const POINTER: u64 = size_of::<u32>() as u64;
/// Size classes there are.
pub(super) const CLASSES: usize = FRAME / STEP;

/// In a back-pointer: the slot is a hole, and the other bits are the hole's index.
const HOLE: u32 = 1 << 31;
/// Blocks that a back-pointer can distinguish.
pub(super) const MAX_BLOCKS: u64 = HOLE as u64;

/// A size class: slots of `STEP * (class + 1)` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(usize);

impl Class {
    /// The class for a payload of 1..=4096 bytes.
    pub(super) fn of(len: usize) -> Self {
        debug_assert!((1..=FRAME).contains(&len));
        Self((len - 1) / STEP)
    }

    /// All of them, smallest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(Self)
    }

    /// Its number, from 0.
    pub(super) fn index(self) -> usize {
        self.0
    }

    /// Bytes in a slot.
    pub(super) fn slot_size(self) -> usize {
        (self.0 + 1) * STEP
    }
}

/// The slots of one class.
#[derive(Debug)]
pub(super) struct Slab {
    slot_size: usize,
    /// The frames, in slot order.
    frames: Vec<u32>,
    /// Back-pointers: for each slot its block, or [`HOLE`] and its place in `holes`.
    owners: Vec<u32>,
    /// Free slots before the end, in no order.
    holes: Vec<u32>,
}

impl Slab {
    /// An empty slab.
    pub(super) fn new(class: Class) -> Self {
        Self { slot_size: class.slot_size(), frames: Vec::new(), owners: Vec::new(), holes: Vec::new() }
    }

    /// Takes a slot for a block: a hole, or a new one at the end. None if that needs a frame and there is none.
    pub(super) fn alloc(&mut self, block: u32, arena: &Arena, metadata: &AtomicU64) -> Option<(u32, Span)> {
        let slot = match self.holes.pop() {
            Some(slot) => {
                self.owners[slot as usize] = block;
                slot
            }
            None => {
                let before = self.metadata();
                if (self.owners.len() + 1) * self.slot_size > self.frames.len() * FRAME {
                    let frame = arena.take()?;
                    grow(&mut self.frames);
                    self.frames.push(frame);
                }
                grow(&mut self.owners);
                self.owners.push(block);
                count::change(metadata, before, self.metadata());
                self.owners.len() as u32 - 1
            }
        };
        Some((slot, self.span(slot)?))
    }

    /// Frees a live slot.
    pub(super) fn free(&mut self, slot: u32, arena: &Arena, metadata: &AtomicU64) {
        let before = self.metadata();
        self.owners[slot as usize] = HOLE | self.holes.len() as u32;
        self.holes.push(slot);
        self.retract(arena);
        count::change(metadata, before, self.metadata());
    }

    /// The location of a slot, if it exists.
    pub(super) fn span(&self, slot: u32) -> Option<Span> {
        if slot as usize >= self.owners.len() {
            return None;
        }
        let first = slot as usize * self.slot_size;
        let last = first + self.slot_size - 1;
        let offset = first % FRAME;
        Some(Span {
            head: self.frames[first / FRAME] as usize * FRAME + offset,
            room: FRAME - offset,
            tail: self.frames[last / FRAME] as usize * FRAME,
        })
    }

    /// Whether there are more holes than compaction lets be.
    pub(super) fn is_loose(&self) -> bool {
        self.holes.len() > self.allowance()
    }

    /// Holes that are let be. A slab whose population only fluctuates walks between none and this many, and moves a
    /// slot each time it runs into the upper end: more holes, fewer moves. Both are least, summed over all slabs, when
    /// the number grows with the square root of the traffic; the factor and the cap are measured (docs/store.md).
    fn allowance(&self) -> usize {
        (self.live_slots().isqrt() * 2 / 5).min(16)
    }

    /// Whether compaction would free a frame.
    pub(super) fn has_slack(&self) -> bool {
        self.frames_for(self.live_slots()) < self.frames.len()
    }

    /// Whether one more live slot needs a frame more, holes compacted.
    pub(super) fn would_take_frame(&self) -> bool {
        self.frames_for(self.live_slots() + 1) > self.frames_for(self.live_slots())
    }

    /// Whether one live slot less needs a frame less, holes compacted.
    pub(super) fn would_give_frame(&self) -> bool {
        self.frames_for(self.live_slots().saturating_sub(1)) < self.frames_for(self.live_slots())
    }

    fn live_slots(&self) -> usize {
        self.owners.len() - self.holes.len()
    }

    /// Frames that hold so many slots.
    fn frames_for(&self, slots: usize) -> usize {
        (slots * self.slot_size).div_ceil(FRAME)
    }

    /// The last slot and its block, if it could move into a hole.
    pub(super) fn movable(&self) -> Option<(u32, u32)> {
        // The last slot is never a hole: `retract` sees to it.
        if self.holes.is_empty() { None } else { Some((self.owners.len() as u32 - 1, *self.owners.last()?)) }
    }

    /// Moves the first `len` bytes of the last slot into a hole and returns its new slot.
    ///
    /// # Safety
    /// [`Slab::movable`] named that slot, `len` is at most the slot size, and the caller holds the leaf lock of its block.
    pub(super) unsafe fn move_last(&mut self, len: usize, arena: &Arena, metadata: &AtomicU64) -> Option<u32> {
        let (from, block) = self.movable()?;
        let before = self.metadata();
        let to = self.holes.pop()?;
        let (source, target) = (self.span(from)?, self.span(to)?);
        let mut bytes = [0; FRAME];
        // SAFETY: the block is locked by the caller; the hole is unused, and the slab lock (`&mut self`) keeps it so.
        unsafe {
            arena.load(source, &mut bytes[..len]);
            arena.store(target, &bytes[..len]);
        }
        self.owners[to as usize] = block;
        self.owners.pop();
        self.retract(arena);
        count::change(metadata, before, self.metadata());
        Some(to)
    }

    /// Whether there are holes.
    pub(super) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// The last slot and its block, if without one slot more the last frame is free. None if there are holes.
    pub(super) fn giveable(&self) -> Option<(u32, u32)> {
        if self.has_holes() || !self.would_give_frame() {
            return None;
        }
        Some((self.owners.len() as u32 - 1, *self.owners.last()?))
    }

    /// Frees a slot, moves the first `len` bytes of the last slot there (unless it is that one) and hands the frame this
    /// leaves unused to `taker`, for a new slot there at its end: no other thread can have the frame in between. Returns
    /// the new slot. Its owner is the owner of the slot freed.
    ///
    /// # Safety
    /// [`Slab::giveable`] named the last slot, `len` is at most the slot size, and the caller holds the leaf locks of its
    /// block and of the block whose slot is freed.
    pub(super) unsafe fn hand_over(
        &mut self,
        slot: u32,
        len: usize,
        taker: &mut Self,
        arena: &Arena,
        metadata: &AtomicU64,
    ) -> Option<(u32, Span)> {
        let before = self.metadata() + taker.metadata();
        let (last, owner) = self.giveable()?;
        let (from, to) = (self.span(last)?, self.span(slot)?);
        let block = std::mem::replace(self.owners.get_mut(slot as usize)?, owner);
        if last != slot {
            let mut bytes = [0; FRAME];
            // SAFETY: both blocks are locked by the caller.
            unsafe {
                arena.load(from, &mut bytes[..len]);
                arena.store(to, &bytes[..len]);
            }
        }
        self.owners.pop();
        grow(&mut taker.frames);
        taker.frames.extend(self.frames.pop());
        grow(&mut taker.owners);
        taker.owners.push(block);
        self.retract(arena);
        count::change(metadata, before, self.metadata() + taker.metadata());
        let new = taker.owners.len() as u32 - 1;
        Some((new, taker.span(new)?))
    }

    /// Drops holes at the end, and the frames behind them.
    fn retract(&mut self, arena: &Arena) {
        while let Some(owner) = self.owners.last().copied().filter(|owner| owner & HOLE != 0) {
            let place = (owner & !HOLE) as usize;
            self.holes.swap_remove(place);
            if let Some(&moved) = self.holes.get(place) {
                self.owners[moved as usize] = HOLE | place as u32;
            }
            self.owners.pop();
        }
        while self.frames.len() > (self.owners.len() * self.slot_size).div_ceil(FRAME) {
            let Some(frame) = self.frames.pop() else { break };
            arena.give(frame);
        }
        shrink(&mut self.frames);
        shrink(&mut self.owners);
        shrink(&mut self.holes);
    }

    /// Frames held.
    pub(super) fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Live slots and their blocks.
    pub(super) fn live(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..).zip(&self.owners).filter(|(_, owner)| *owner & HOLE == 0).map(|(slot, owner)| (slot, *owner))
    }

    /// Bytes of host memory for frame list, back-pointers and hole list.
    pub(super) fn metadata(&self) -> u64 {
        ((self.frames.capacity() + self.owners.capacity() + self.holes.capacity()) * size_of::<u32>()) as u64
    }
}

/// Makes room for one more, in steps of a sixteenth: doubling would waste up to half of the back-pointers.
fn grow(list: &mut Vec<u32>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 16 + 16);
    }
}

/// Returns room once an eighth of it is unused.
fn shrink(list: &mut Vec<u32>) {
    if list.capacity() - list.len() > list.capacity() / 8 + 64 {
        list.shrink_to(list.len() + list.len() / 16);
    }
}
