//! An entry of the block map: 8 bytes with the location of a block.
//!
//! | value | meaning |
//! |---|---|
//! | 0 | never written, or trimmed |
//! | bits 63:46 = [`TAG`] | kind in 45:43; unless that is 0, stored: length - 1 in 42:31, slot in 30:0 |
//! | anything else | the block repeats this 8-byte word |
//!
//! | kind | meaning |
//! |---|---|
//! | 0 | a block of written zeros |
//! | 1 | zstd |
//! | 2, 3, 4 | lz4: fresh, cold, settled ([`Age`]) |
//! | 5, 6, 7 | raw: fresh, cold, settled |
//!
//! A fill word that itself begins with [`TAG`] (one in 2^18 of random words) has no room here; such a block is
//! compressed like any other.

use super::slab::MAX_BLOCKS;

/// Marks an entry that is not a fill word. Neither text, a small number, a canonical address nor a common float.
const TAG: u64 = 0x2_a6c5;
const TAG_SHIFT: u32 = 46;
const KIND_SHIFT: u32 = 43;
const LEN_SHIFT: u32 = 31;
/// A slab never has more slots than there are blocks, so that a slot number fits below the length.
const SLOT_MASK: u64 = MAX_BLOCKS - 1;
const _: () = assert!(MAX_BLOCKS == 1 << LEN_SHIFT);

/// How a stored block is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// LZ4 block format.
    Lz4,
    /// Zstandard, magicless, without content size.
    Zstd,
    /// The 4096 bytes as they are.
    Raw,
}

/// What recompression knows of a stored block. Every write makes it [`Age::Fresh`]; nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Written since recompression last came by.
    Fresh,
    /// Not written since recompression last came by.
    Cold,
    /// Nothing to gain until it is written again: zstd already, or tried.
    Settled,
}

/// Where the bytes of a stored block are. The size class follows from the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Slot number within the slab of its class.
    pub(super) slot: u32,
    /// Payload bytes, 1..=4096.
    pub(super) len: usize,
    /// Encoding of the payload.
    pub(super) form: Form,
    /// Whether recompression should try it. Always settled for zstd.
    pub(super) age: Age,
}

impl Stored {
    /// A payload just written.
    pub(super) fn new(slot: u32, len: usize, form: Form) -> Self {
        let age = if form == Form::Zstd { Age::Settled } else { Age::Fresh };
        Self { slot, len, form, age }
    }
}

/// What the map knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Never written, or trimmed: reads as zeros.
    Empty,
    /// This word, 512 times.
    Fill(u64),
    /// In a slot.
    Stored(Stored),
}

impl Entry {
    /// Whether a fill word fits into an entry.
    pub(super) fn can_hold(word: u64) -> bool {
        word >> TAG_SHIFT != TAG
    }

    /// The 8 bytes.
    pub(super) fn encode(self) -> u64 {
        let tagged = |kind: u64, len: u64, slot: u64| TAG << TAG_SHIFT | kind << KIND_SHIFT | len << LEN_SHIFT | slot;
        match self {
            Self::Empty => 0,
            Self::Fill(0) => tagged(0, 0, 0),
            Self::Fill(word) => word,
            Self::Stored(Stored { slot, len, form, age }) => {
                debug_assert!((1..=1 << 12).contains(&len) && u64::from(slot) <= SLOT_MASK);
                let age = match age {
                    Age::Fresh => 0,
                    Age::Cold => 1,
                    Age::Settled => 2,
                };
                let kind = match form {
                    Form::Zstd => 1,
                    Form::Lz4 => 2 + age,
                    Form::Raw => 5 + age,
                };
                tagged(kind, len as u64 - 1, u64::from(slot))
            }
        }
    }

    /// The inverse of [`Entry::encode`].
    pub(super) fn decode(bits: u64) -> Self {
        if bits == 0 {
            return Self::Empty;
        }
        if Self::can_hold(bits) {
            return Self::Fill(bits);
        }
        let (form, age) = match bits >> KIND_SHIFT & 7 {
            0 => return Self::Fill(0),
            1 => (Form::Zstd, Age::Settled),
            2 => (Form::Lz4, Age::Fresh),
            3 => (Form::Lz4, Age::Cold),
            4 => (Form::Lz4, Age::Settled),
            5 => (Form::Raw, Age::Fresh),
            6 => (Form::Raw, Age::Cold),
            _ => (Form::Raw, Age::Settled),
        };
        let (slot, len) = ((bits & SLOT_MASK) as u32, (bits >> LEN_SHIFT & 0xfff) as usize + 1);
        Self::Stored(Stored { slot, len, form, age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entry_survives_encoding() {
        let mut entries =
            vec![Entry::Empty, Entry::Fill(0), Entry::Fill(1), Entry::Fill(u64::MAX), Entry::Fill(1 << 63)];
        let ages = [Age::Fresh, Age::Cold, Age::Settled];
        let kinds = [Form::Lz4, Form::Raw].map(|form| ages.map(|age| (form, age)));
        for (form, age) in kinds.into_iter().flatten().chain([(Form::Zstd, Age::Settled)]) {
            for len in [1, 2, 4095, 4096] {
                for slot in [0, 1, SLOT_MASK as u32] {
                    entries.push(Entry::Stored(Stored { slot, len, form, age }));
                }
            }
        }
        for entry in entries {
            assert_eq!(Entry::decode(entry.encode()), entry);
        }
    }

    #[test]
    fn a_word_that_looks_like_a_tag_is_refused() {
        assert!(!Entry::can_hold(TAG << TAG_SHIFT));
        assert!(!Entry::can_hold(TAG << TAG_SHIFT | 0xffff));
        assert!(Entry::can_hold((TAG + 1) << TAG_SHIFT));
    }
}
