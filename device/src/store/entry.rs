//! One entry of the block map: 8 bytes that say where a block is.
//!
//! | value | meaning |
//! |---|---|
//! | 0 | never written, or trimmed |
//! | bits 63:46 = [`TAG`] | stored: form in 45:44, length - 1 in 43:32, slot in 31:0; form 0 is a block of written zeros |
//! | anything else | the block repeats this 8-byte word |
//!
//! A fill word that itself begins with [`TAG`] (one in 2^18 of random words) has no room here; such a block is
//! compressed like any other.

/// Marks an entry that is not a fill word. Neither text, a small number, a canonical address nor a common float.
const TAG: u64 = 0x2_a6c5;
const TAG_SHIFT: u32 = 46;
const FORM_SHIFT: u32 = 44;
const LEN_SHIFT: u32 = 32;

/// How a stored block is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// LZ4 block format.
    Lz4,
    /// Zstandard, magicless, without content size.
    Zstd,
    /// The 4096 bytes as they are.
    Raw,
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
        let tagged = |form: u64, len: u64, slot: u64| TAG << TAG_SHIFT | form << FORM_SHIFT | len << LEN_SHIFT | slot;
        match self {
            Self::Empty => 0,
            Self::Fill(0) => tagged(0, 0, 0),
            Self::Fill(word) => word,
            Self::Stored(Stored { slot, len, form }) => {
                debug_assert!((1..=1 << 12).contains(&len));
                let form = match form {
                    Form::Lz4 => 1,
                    Form::Zstd => 2,
                    Form::Raw => 3,
                };
                tagged(form, len as u64 - 1, u64::from(slot))
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
        let form = match bits >> FORM_SHIFT & 3 {
            0 => return Self::Fill(0),
            1 => Form::Lz4,
            2 => Form::Zstd,
            _ => Form::Raw,
        };
        Self::Stored(Stored { slot: bits as u32, len: (bits >> LEN_SHIFT & 0xfff) as usize + 1, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entry_survives_encoding() {
        let mut entries =
            vec![Entry::Empty, Entry::Fill(0), Entry::Fill(1), Entry::Fill(u64::MAX), Entry::Fill(1 << 63)];
        for form in [Form::Lz4, Form::Zstd, Form::Raw] {
            for len in [1, 2, 4095, 4096] {
                for slot in [0, 1, u32::MAX] {
                    entries.push(Entry::Stored(Stored { slot, len, form }));
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
