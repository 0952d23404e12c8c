//! The poison list: which 64-byte lines hold no data, and why.
//!
//! Kept as 64-bit line masks a block, in [`runs`]: blocks lost in a row are one entry, however many. Lines poisoned on
//! request are bounded by [`PoisonList::MAX_INJECTED`]. Lines lost by the device itself are never refused, because loss
//! must not go unrecorded: at worst, where no two neighbours have the same history, they take an entry a block.

mod runs;

use std::ops::Range;

use self::runs::Runs;
use crate::store::{BLOCK_SIZE, Block};

/// Bytes a poison record is counted in (CXL 3.1, 8.2.10.9.4.1: units of 64 bytes).
pub const LINE_SIZE: u64 = 64;

/// What a load of a poisoned line returns, repeated over the 64 bytes. Never silently the old data.
pub const POISON_PATTERN: u64 = 0xdead_beef_bad0_c0de;

const LINES_PER_BLOCK: u64 = BLOCK_SIZE as u64 / LINE_SIZE;

/// Where a poisoned line came from; the values are those of the poison list's error source field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PoisonSource {
    /// Unknown.
    Unknown = 0,
    /// External to the device.
    External = 1,
    /// Internal: here, a block that no longer fitted.
    Internal = 2,
    /// Injected.
    Injected = 3,
    /// Vendor-specific.
    Vendor = 7,
}

/// A run of poisoned lines with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonRecord {
    /// First byte (DPA), 64-byte aligned.
    pub dpa: u64,
    /// Length in bytes, a multiple of 64.
    pub length: u64,
    /// Where it came from.
    pub source: PoisonSource,
}

/// Poisoned runs of a range, as many as were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoisonPage {
    /// The runs, ascending.
    pub records: Vec<PoisonRecord>,
    /// The first poisoned byte after them, if there are more: where to continue.
    pub rest: Option<u64>,
}

impl PoisonPage {
    /// Adds a run, as a record of its own or as more of the last one. False if it does not fit.
    fn add(&mut self, run: PoisonRecord, most: usize) -> bool {
        let room = self.records.len() < most;
        match self.records.last_mut() {
            Some(last) if last.continues(&run) => last.length += run.length,
            _ if !room => return false,
            _ => self.records.push(run),
        }
        true
    }
}

impl PoisonRecord {
    /// Whether a run is the rest of this one. A record is no longer than its length field in units of 64 bytes can express.
    pub(super) fn continues(&self, run: &Self) -> bool {
        self.source == run.source
            && self.dpa + self.length == run.dpa
            && self.length + run.length <= PoisonList::MAX_RECORD
    }
}

/// One block's poisoned lines, bit n for line n. A line is in at most one of the first two masks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lines {
    internal: u64,
    injected: u64,
    /// The lines among them that were written back since, but not completely: the stored data has the pattern where they were
    /// not written.
    partial: u64,
}

impl Lines {
    const LOST: Self = Self { internal: u64::MAX, injected: 0, partial: 0 };

    fn poisoned(self) -> u64 {
        self.internal | self.injected
    }

    /// The runs of lines of one source, in order.
    fn runs(self) -> impl Iterator<Item = (Range<u64>, PoisonSource)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            at += u64::from(self.poisoned().checked_shr(at as u32)?.trailing_zeros());
            let (mask, source) = match 1_u64.checked_shl(at as u32)? {
                bit if self.internal & bit != 0 => (self.internal, PoisonSource::Internal),
                _ => (self.injected, PoisonSource::Injected),
            };
            let start = at;
            at += u64::from((mask >> at).trailing_ones());
            Some((start..at, source))
        })
    }
}

/// The list is full of injected lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListFull;

/// The poisoned lines of a medium.
#[derive(Debug, Default)]
pub(super) struct PoisonList {
    blocks: Runs<Lines>,
    injected: u64,
    lines: u64,
}

impl PoisonList {
    /// Lines that may be poisoned on request at one time.
    pub(super) const MAX_INJECTED: usize = 256;

    /// Bytes of the longest record: what 32 bits of lines can express, and whole blocks.
    const MAX_RECORD: u64 = (u32::MAX as u64 + 1) * LINE_SIZE - BLOCK_SIZE as u64;

    /// Entries and parts of blocks that one call of [`Self::page`] looks at: well under a millisecond.
    const MAX_STEPS: usize = 4096;

    /// Bytes poisoned.
    pub(super) fn bytes(&self) -> u64 {
        self.lines * LINE_SIZE
    }

    /// The poisoned lines of a block, bit n for line n.
    pub(super) fn mask(&self, block: u64) -> u64 {
        self.blocks.get(block).poisoned()
    }

    /// The poisoned lines of a block whose stored data differs from what a load returns.
    pub(super) fn hidden(&self, block: u64) -> u64 {
        let lines = self.blocks.get(block);
        lines.poisoned() & !lines.partial
    }

    /// Of these lines, those that are poisoned were written back, in part.
    pub(super) fn written_in_part(&mut self, block: u64, mask: u64) {
        let mut lines = self.blocks.get(block);
        lines.partial |= lines.poisoned() & mask;
        self.replace(block, lines);
    }

    /// Poisons one line on request. A line that is poisoned already keeps its source.
    pub(super) fn inject(&mut self, block: u64, line: u64) -> Result<(), ListFull> {
        let bit = 1 << line;
        let mut lines = self.blocks.get(block);
        lines.partial &= !bit;
        if lines.poisoned() & bit == 0 {
            if self.injected >= Self::MAX_INJECTED as u64 {
                return Err(ListFull);
            }
            lines.injected |= bit;
        }
        self.replace(block, lines);
        Ok(())
    }

    /// The device lost a whole block.
    pub(super) fn lose(&mut self, block: u64) {
        self.replace(block, Lines::LOST);
    }

    /// These lines of a block hold data again.
    pub(super) fn clear(&mut self, block: u64, mask: u64) {
        let Lines { internal, injected, partial } = self.blocks.get(block);
        self.replace(block, Lines { internal: internal & !mask, injected: injected & !mask, partial: partial & !mask });
    }

    /// No line of these blocks is poisoned any more.
    pub(super) fn clear_blocks(&mut self, blocks: Range<u64>) {
        for (run, lines) in self.blocks.within(blocks.clone()) {
            let count = run.end - run.start;
            self.injected -= u64::from(lines.injected.count_ones()) * count;
            self.lines -= u64::from(lines.poisoned().count_ones()) * count;
        }
        self.blocks.set(blocks, Lines::default());
    }

    /// Poisoned runs inside a range of bytes, cut to the lines it touches, at most so many. Neighbours of one source are
    /// joined. Takes time in proportion to the answer, not to the poison: it may end early, with some runs and a rest.
    pub(super) fn page(&self, dpa: Range<u64>, most: usize) -> PoisonPage {
        let mut page = PoisonPage::default();
        if dpa.is_empty() {
            return page;
        }
        let lines = dpa.start / LINE_SIZE..dpa.end.div_ceil(LINE_SIZE);
        let blocks = lines.start / LINES_PER_BLOCK..lines.end.div_ceil(LINES_PER_BLOCK);
        let pieces = self.blocks.within(blocks).flat_map(|(run, lines)| {
            // A run of lost blocks is a piece, of any other each part of each block.
            let (whole, each) = if lines.internal == u64::MAX { (Some(run), 0..0) } else { (None, run) };
            let whole =
                whole.map(|run| (run.start * LINES_PER_BLOCK..run.end * LINES_PER_BLOCK, PoisonSource::Internal));
            let part = move |block: u64| {
                let first = block * LINES_PER_BLOCK;
                lines.runs().map(move |(part, source)| (first + part.start..first + part.end, source))
            };
            whole.into_iter().flat_map(in_records).chain(each.flat_map(part))
        });
        for (step, (piece, source)) in pieces.enumerate() {
            let piece = piece.start.max(lines.start)..piece.end.min(lines.end);
            let dpa = piece.start * LINE_SIZE;
            let run = PoisonRecord { dpa, length: piece.end.saturating_sub(piece.start) * LINE_SIZE, source };
            if run.length > 0 && (step >= Self::MAX_STEPS || !page.add(run, most)) {
                page.rest = Some(dpa);
                break;
            }
        }
        page
    }

    fn replace(&mut self, block: u64, lines: Lines) {
        let before = self.blocks.get(block);
        self.injected += u64::from(lines.injected.count_ones());
        self.injected -= u64::from(before.injected.count_ones());
        self.lines += u64::from(lines.poisoned().count_ones());
        self.lines -= u64::from(before.poisoned().count_ones());
        if lines != before {
            self.blocks.set(block..block + 1, lines);
        }
    }
}

/// Cuts a run of lines so that each part fits into a record.
fn in_records((lines, source): (Range<u64>, PoisonSource)) -> impl Iterator<Item = (Range<u64>, PoisonSource)> {
    const MOST: u64 = PoisonList::MAX_RECORD / LINE_SIZE;
    let end = lines.end;
    lines.step_by(MOST as usize).map(move |start| (start..end.min(start + MOST), source))
}

/// Puts [`POISON_PATTERN`] on the masked lines.
pub(super) fn overlay(block: &mut Block, mask: u64) {
    let pattern = POISON_PATTERN.to_le_bytes();
    for (line, bytes) in block.chunks_exact_mut(LINE_SIZE as usize).enumerate() {
        if mask & (1 << line) != 0 {
            bytes.chunks_exact_mut(pattern.len()).for_each(|word| word.copy_from_slice(&pattern));
        }
    }
}

/// The lines that hold four bytes of [`POISON_PATTERN`], or more, where it has them.
pub(super) fn pattern_lines(block: &Block) -> u64 {
    let pattern = POISON_PATTERN.to_le_bytes();
    let (low, high) = pattern.split_at(pattern.len() / 2);
    let mut mask = 0;
    for (line, bytes) in block.chunks_exact(LINE_SIZE as usize).enumerate() {
        if bytes.chunks_exact(pattern.len()).any(|word| word.starts_with(low) || word.ends_with(high)) {
            mask |= 1 << line;
        }
    }
    mask
}

#[cfg(test)]
mod tests;
