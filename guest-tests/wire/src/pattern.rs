//! Page contents that can be generated again from a few numbers.
//!
//! A page's content depends only on the pattern and on the page's number in its mapping, so any part of a mapping can be
//! verified later from the pattern alone.

use serde::{Deserialize, Serialize};

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// Bytes in a line, the unit of poison and of CXL transfers.
pub const LINE: usize = 64;
/// The word that a poisoned line returns, eight times.
pub const POISON: u64 = 0xdead_beef_bad0_c0de;

/// The content to fill pages with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "pattern", rename_all = "snake_case")]
pub enum Pattern {
    /// Zeroes.
    Zero,
    /// The same 64-bit word throughout.
    Same {
        /// The word.
        word: u64,
    },
    /// Pseudo-random: does not compress. No two pages are alike.
    Random {
        /// Another seed, other pages.
        seed: u64,
    },
    /// Compresses about `ratio` times: the first 4096/ratio bytes are as [`Pattern::Random`], the others zero.
    Compressible {
        /// Another seed, other pages.
        seed: u64,
        /// At least 1.
        ratio: f64,
    },
    /// A file or block device, from `offset` on, repeated. Its last page is padded with zeroes.
    File {
        /// Absolute path.
        path: String,
        /// Bytes; a multiple of 4096.
        #[serde(default)]
        offset: u64,
    },
}

impl Pattern {
    /// Generates the content of page `number`. Returns false for [`Pattern::File`], whose content is not generated.
    pub fn make(&self, number: u64, page: &mut [u8; PAGE]) -> bool {
        match *self {
            Self::Zero => page.fill(0),
            Self::Same { word } => {
                page.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word.to_le_bytes()))
            }
            Self::Random { seed } => random(seed, number, page),
            Self::Compressible { seed, ratio } => {
                let random_bytes = (PAGE as f64 / ratio.max(1.0)) as usize / 8 * 8;
                let (head, tail) = page.split_at_mut(random_bytes.min(PAGE));
                random(seed, number, head);
                tail.fill(0);
            }
            Self::File { .. } => return false,
        }
        true
    }
}

/// SplitMix64, one stream for each page. The length is a multiple of 8.
fn random(seed: u64, number: u64, bytes: &mut [u8]) {
    let mut state = mix(seed ^ mix(number.wrapping_add(1)));
    for chunk in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mix(state).to_le_bytes());
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The result of verifying. Distinguishes poison, which the device promises to report, from silent corruption, a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Pages compared.
    pub pages: u64,
    /// Pages that differ only in poisoned lines.
    pub pages_poisoned: u64,
    /// Pages that differ otherwise.
    pub pages_wrong: u64,
    /// 64-byte lines that differ only by poison: all of the line, or the part not written since.
    pub lines_poisoned: u64,
    /// 64-byte lines that differ otherwise.
    pub lines_wrong: u64,
    /// The first few differences, one per page.
    pub first: Vec<Difference>,
}

impl Verdict {
    /// The most differences recorded.
    pub const KEPT: usize = 8;

    /// Whether every page was as expected.
    pub fn clean(&self) -> bool {
        self.pages_poisoned == 0 && self.pages_wrong == 0
    }

    /// Adds another verdict.
    pub fn add(&mut self, other: Self) {
        self.pages += other.pages;
        self.pages_poisoned += other.pages_poisoned;
        self.pages_wrong += other.pages_wrong;
        self.lines_poisoned += other.lines_poisoned;
        self.lines_wrong += other.lines_wrong;
        let room = Self::KEPT.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }

    /// Compares page `number` with its expected content.
    pub fn compare(&mut self, number: u64, expected: &[u8; PAGE], found: &[u8; PAGE]) {
        self.pages += 1;
        if expected == found {
            return;
        }
        let (mut poisoned, mut wrong, mut first) = (0, 0, None);
        for (line, (expected, found)) in expected.chunks_exact(LINE).zip(found.chunks_exact(LINE)).enumerate() {
            if expected == found {
                continue;
            }
            let poison = is_poison(expected, found);
            *(if poison { &mut poisoned } else { &mut wrong }) += 1;
            let word = words(expected).zip(words(found)).position(|(expected, found)| expected != found);
            if let (None, Some(word)) = (&first, word) {
                first = Some(Difference {
                    page: number,
                    offset: (line * LINE + word * 8) as u64,
                    expected: words(expected).nth(word).unwrap_or_default(),
                    found: words(found).nth(word).unwrap_or_default(),
                });
            }
        }
        self.lines_poisoned += poisoned;
        self.lines_wrong += wrong;
        *(if wrong == 0 { &mut self.pages_poisoned } else { &mut self.pages_wrong }) += 1;
        if self.first.len() < Self::KEPT {
            self.first.extend(first);
        }
    }
}

/// Whether two lines differ only where the second has at least four bytes of the poison pattern.
fn is_poison(expected: &[u8], found: &[u8]) -> bool {
    let pattern = POISON.to_le_bytes();
    let mut halves = expected.chunks_exact(4).zip(found.chunks_exact(4)).zip(pattern.chunks_exact(4).cycle());
    halves.all(|((expected, found), pattern)| expected == found || found == pattern)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

/// The first difference in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The page's number in its mapping.
    pub page: u64,
    /// Bytes into the page.
    pub offset: u64,
    /// The expected word.
    pub expected: u64,
    /// The word found.
    pub found: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pattern: &Pattern, number: u64) -> [u8; PAGE] {
        let mut page = [0xaa; PAGE];
        assert!(pattern.make(number, &mut page));
        page
    }

    #[test]
    fn a_page_can_be_made_again_and_no_two_are_alike() {
        let random = Pattern::Random { seed: 7 };
        assert_eq!(page(&random, 3), page(&random, 3));
        assert_ne!(page(&random, 3), page(&random, 4));
        assert_ne!(page(&random, 3), page(&Pattern::Random { seed: 8 }, 3));
    }

    #[test]
    fn the_ratio_says_how_much_of_a_page_is_random() {
        for (ratio, random) in [(1.0, 4096), (2.0, 2048), (4.0, 1024), (3.0, 1360), (0.5, 4096)] {
            let page = page(&Pattern::Compressible { seed: 1, ratio }, 9);
            let last = page.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            assert!((random - 8..=random).contains(&last), "ratio {ratio}: {last} bytes");
        }
    }

    #[test]
    fn poison_and_silent_corruption_are_told_apart() {
        let expected = page(&Pattern::Random { seed: 1 }, 0);
        let mut verdict = Verdict::default();
        verdict.compare(0, &expected, &expected);
        assert!(verdict.clean());

        let mut poisoned = expected;
        for chunk in poisoned[128..256].chunks_exact_mut(8) {
            chunk.copy_from_slice(&POISON.to_le_bytes());
        }
        verdict.compare(1, &expected, &poisoned);
        assert_eq!((verdict.pages_poisoned, verdict.pages_wrong, verdict.lines_poisoned), (1, 0, 2));

        let mut both = poisoned;
        both[4095] ^= 1;
        verdict.compare(2, &expected, &both);
        assert_eq!((verdict.pages_poisoned, verdict.pages_wrong), (1, 1));
        assert_eq!((verdict.lines_poisoned, verdict.lines_wrong), (4, 1));
        assert_eq!(verdict.pages, 3);
        assert!(!verdict.clean());
        assert_eq!(verdict.first[0].page, 1);
        assert_eq!((verdict.first[0].offset, verdict.first[0].found), (128, POISON));
    }

    #[test]
    fn a_line_that_was_written_in_part_is_poison_if_the_rest_is() {
        let expected = [0; PAGE];
        let mut found = expected;
        found[4..16].copy_from_slice(&[POISON.to_le_bytes(), POISON.to_le_bytes()].concat()[4..]);
        let mut verdict = Verdict::default();
        verdict.compare(0, &expected, &found);
        assert_eq!((verdict.pages_wrong, verdict.lines_poisoned), (0, 1));
        found[20] = 1;
        verdict.compare(0, &expected, &found);
        assert_eq!((verdict.pages_wrong, verdict.lines_poisoned), (1, 1));
    }
}
