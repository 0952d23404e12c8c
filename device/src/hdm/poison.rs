//! The poison list: which 64-byte lines hold no data, and why.
//!
//! Kept as 64-bit line masks a block, so that losing a whole block is one map entry. Memory is bounded: lines
//! poisoned on request by [`PoisonList::MAX_INJECTED`], lines lost by the device itself by one entry (32 bytes plus the
//! map's own share) for each block of the capacity. The second is never refused: loss must not go unrecorded.

use std::{collections::BTreeMap, ops::Range};

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

/// One block's poisoned lines, bit n for line n. A line is in at most one of the first two masks.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    internal: u64,
    injected: u64,
    /// The lines among them that were written back since, but not completely: the stored data has the pattern where they were
    /// not written.
    partial: u64,
}

impl Lines {
    fn source(self, line: u64) -> Option<PoisonSource> {
        let bit = 1 << line;
        if self.internal & bit != 0 {
            Some(PoisonSource::Internal)
        } else if self.injected & bit != 0 {
            Some(PoisonSource::Injected)
        } else {
            None
        }
    }
}

/// The list is full of injected lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListFull;

/// The poisoned lines of a medium.
#[derive(Debug, Default)]
pub(super) struct PoisonList {
    blocks: BTreeMap<u64, Lines>,
    injected: usize,
    lines: u64,
}

impl PoisonList {
    /// Lines that may be poisoned on request at one time.
    pub(super) const MAX_INJECTED: usize = 256;

    /// Bytes poisoned.
    pub(super) fn bytes(&self) -> u64 {
        self.lines * LINE_SIZE
    }

    /// The poisoned lines of a block, bit n for line n.
    pub(super) fn mask(&self, block: u64) -> u64 {
        self.blocks.get(&block).map_or(0, |lines| lines.internal | lines.injected)
    }

    /// The poisoned lines of a block whose stored data differs from what a load returns.
    pub(super) fn hidden(&self, block: u64) -> u64 {
        self.blocks.get(&block).map_or(0, |lines| (lines.internal | lines.injected) & !lines.partial)
    }

    /// Of these lines, those that are poisoned were written back, in part.
    pub(super) fn written_in_part(&mut self, block: u64, mask: u64) {
        if let Some(lines) = self.blocks.get_mut(&block) {
            lines.partial |= (lines.internal | lines.injected) & mask;
        }
    }

    /// Poisons one line on request. A line that is poisoned already keeps its source.
    pub(super) fn inject(&mut self, block: u64, line: u64) -> Result<(), ListFull> {
        let bit = 1 << line;
        if let Some(lines) = self.blocks.get_mut(&block)
            && (lines.internal | lines.injected) & bit != 0
        {
            lines.partial &= !bit;
            return Ok(());
        }
        if self.injected >= Self::MAX_INJECTED {
            return Err(ListFull);
        }
        self.blocks.entry(block).or_default().injected |= bit;
        self.injected += 1;
        self.lines += 1;
        Ok(())
    }

    /// The device lost a whole block.
    pub(super) fn lose(&mut self, block: u64) {
        self.clear(block, u64::MAX);
        self.blocks.insert(block, Lines { internal: u64::MAX, ..Lines::default() });
        self.lines += LINES_PER_BLOCK;
    }

    /// These lines of a block hold data again.
    pub(super) fn clear(&mut self, block: u64, mask: u64) {
        let Some(lines) = self.blocks.get_mut(&block) else { return };
        let injected = (lines.injected & mask).count_ones();
        self.injected -= injected as usize;
        self.lines -= u64::from(injected + (lines.internal & mask).count_ones());
        lines.injected &= !mask;
        lines.internal &= !mask;
        lines.partial &= !mask;
        if lines.internal | lines.injected == 0 {
            self.blocks.remove(&block);
        }
    }

    /// No line of these blocks is poisoned any more.
    pub(super) fn clear_blocks(&mut self, blocks: Range<u64>) {
        let mut next = blocks.start;
        while let Some((&block, _)) = self.blocks.range(next..blocks.end.max(next)).next() {
            self.clear(block, u64::MAX);
            next = block + 1;
        }
    }

    /// Poisoned runs inside a range of bytes, cut to the lines it touches; neighbours of one source are joined.
    pub(super) fn list(&self, dpa: Range<u64>) -> Vec<PoisonRecord> {
        let mut records: Vec<PoisonRecord> = Vec::new();
        if dpa.is_empty() {
            return records;
        }
        let first_line = dpa.start / LINE_SIZE;
        let last_line = (dpa.end - 1) / LINE_SIZE;
        for (&block, &lines) in self.blocks.range(first_line / LINES_PER_BLOCK..=last_line / LINES_PER_BLOCK) {
            for line in 0..LINES_PER_BLOCK {
                let at = block * LINES_PER_BLOCK + line;
                if at < first_line || at > last_line {
                    continue;
                }
                let Some(source) = lines.source(line) else { continue };
                match records.last_mut() {
                    Some(run) if run.source == source && run.dpa + run.length == at * LINE_SIZE => {
                        run.length += LINE_SIZE;
                    }
                    _ => records.push(PoisonRecord { dpa: at * LINE_SIZE, length: LINE_SIZE, source }),
                }
            }
        }
        records
    }
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
