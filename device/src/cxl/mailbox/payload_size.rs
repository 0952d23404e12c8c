//! The size of the mailbox's payload registers (CXL 3.1, 8.2.8.4.3): a power of two.

use std::str::FromStr;

use cxl_cram_kit::size::{exact_bytes, parse_bytes};

/// The sizes that a device may have, as powers of two: 2 KiB and 1 MiB. The specification allows 256 bytes, with which some
/// commands here would not work.
const SHIFTS: std::ops::RangeInclusive<u32> = 11..=20;

/// Bytes of the payload registers, by default 2 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSize {
    shift: u32,
}

impl PayloadSize {
    /// A power of two from 2 KiB to 1 MiB, or `None` for any other number of bytes.
    pub fn new(bytes: u64) -> Option<Self> {
        let shift = bytes.checked_ilog2()?;
        (bytes.is_power_of_two() && SHIFTS.contains(&shift)).then_some(Self { shift })
    }

    /// Bytes.
    pub fn bytes(self) -> usize {
        1 << self.shift
    }

    /// The power of two, as the capabilities register has it.
    pub(in crate::cxl) fn shift(self) -> u32 {
        self.shift
    }
}

impl Default for PayloadSize {
    fn default() -> Self {
        Self { shift: *SHIFTS.start() }
    }
}

impl std::fmt::Display for PayloadSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&exact_bytes(self.bytes() as u64))
    }
}

impl FromStr for PayloadSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(parse_bytes(text)?).ok_or_else(|| "it must be a power of two from 2K to 1M".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_from_2_kib_to_1_mib_are_sizes() {
        for (text, bytes) in [("2K", 2048), ("2048", 2048), ("64K", 65536), ("1M", 1 << 20)] {
            assert_eq!(text.parse::<PayloadSize>().map(PayloadSize::bytes), Ok(bytes), "{text}");
        }
        for text in ["0", "1K", "3K", "2M", "1G", "2047", "x"] {
            assert!(text.parse::<PayloadSize>().is_err(), "{text}");
        }
        assert_eq!(PayloadSize::default().to_string(), "2K");
    }
}
