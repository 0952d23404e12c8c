//! The two watermarks on free media, as a pure state machine.
//!
//! Below low: blocked, one low crossing. Above high: free again, one high crossing. In between the last state holds.

use std::{ops::RangeInclusive, str::FromStr};

use cxl_cram_kit::size::parse_bytes;

use crate::store::BLOCK_SIZE;

/// A threshold on free media.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Per cent of the physical size, 0.0..=100.0. Follows the physical size when that is changed.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

/// A size as [`parse_bytes`] takes it, or per cent of the physical size such as `20%`. See [`Threshold::of_bytes`].
impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(number) = text.trim().strip_suffix('%') else { return Self::of_bytes(parse_bytes(text)?) };
        match number.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
            _ => Err(format!("{text:?} is not a percentage; give 0% to 100%, or a size such as 96M")),
        }
    }
}

impl Threshold {
    /// A number of bytes that a user typed. Less than a block is refused: such a number lacks its unit.
    pub fn of_bytes(bytes: u64) -> Result<Self, String> {
        if (1..BLOCK_SIZE as u64).contains(&bytes) {
            return Err(format!(
                "a watermark of {bytes} bytes is less than a block of {BLOCK_SIZE}: give a percentage such as 10%, or a size \
                 with its unit such as 96M"
            ));
        }
        Ok(Self::Bytes(bytes))
    }

    /// In bytes, for a medium of this physical size. `None` for a percentage outside 0..=100.
    fn bytes(self, physical: u64) -> Option<u64> {
        match self {
            Threshold::Bytes(bytes) => Some(bytes),
            Threshold::Percent(percent) if (0.0..=100.0).contains(&percent) => {
                Some((physical as f64 * percent / 100.0) as u64)
            }
            Threshold::Percent(_) => None,
        }
    }
}

/// The two watermarks on *free* media. `low < high < physical`: free media can never exceed the physical size, so a
/// high watermark at it would never be crossed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// Free media below this: low crossing (allocation blocked).
    pub low: Threshold,
    /// Free media above this: high crossing (allocation allowed again).
    pub high: Threshold,
}

/// A watermark was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// Free media fell below the low watermark: stop allocating.
    Low,
    /// Free media rose above the high watermark after a low crossing: allocation may continue.
    High,
}

/// Watermarks that do not make sense, in bytes (`u64::MAX` for a percentage outside 0..=100).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) low: u64,
    pub(super) high: u64,
}

/// The state machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    watermarks: Watermarks,
    low: u64,
    high: u64,
    blocked: bool,
}

impl Gate {
    /// Not blocked.
    pub(super) fn new(watermarks: Watermarks, physical: u64) -> Result<Self, Invalid> {
        let low = watermarks.low.bytes(physical).unwrap_or(u64::MAX);
        let high = watermarks.high.bytes(physical).unwrap_or(u64::MAX);
        if low < high && high < physical {
            Ok(Self { watermarks, low, high, blocked: false })
        } else {
            Err(Invalid { low, high })
        }
    }

    /// The same watermarks for another physical size, not blocked.
    pub(super) fn resized(&self, physical: u64) -> Result<Self, Invalid> {
        Self::new(self.watermarks, physical)
    }

    /// Updates the state for this much free media. Returns the crossing, if there is one.
    pub(super) fn evaluate(&mut self, free: u64) -> Option<Crossing> {
        if !self.blocked && free < self.low {
            self.blocked = true;
            Some(Crossing::Low)
        } else if self.blocked && free > self.high {
            self.blocked = false;
            Some(Crossing::High)
        } else {
            None
        }
    }

    /// The free media, from and to, that crosses nothing now.
    pub(super) fn quiet(&self) -> RangeInclusive<u64> {
        if self.blocked { 0..=self.high } else { self.low..=u64::MAX }
    }

    /// This gate with the state of another.
    pub(super) fn carry(self, other: &Self) -> Self {
        Self { blocked: other.blocked, ..self }
    }

    /// Power cycle.
    pub(super) fn reset(&mut self) {
        self.blocked = false;
    }

    pub(super) fn low(&self) -> u64 {
        self.low
    }

    pub(super) fn high(&self) -> u64 {
        self.high
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_lacks_its_unit_is_refused() {
        for text in ["1", "10", "20", "1K", "4095"] {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(error.contains("less than a block") && error.contains("10%"), "{error}");
        }
        for text in ["0", "4096", "4K"] {
            assert!(text.parse::<Threshold>().is_ok(), "{text}");
        }
    }

    #[test]
    fn thresholds_are_per_cent_or_bytes() {
        assert_eq!("20%".parse(), Ok(Threshold::Percent(20.0)));
        assert_eq!("12.5 %".parse(), Ok(Threshold::Percent(12.5)));
        assert_eq!("0%".parse(), Ok(Threshold::Percent(0.0)));
        assert_eq!("100%".parse(), Ok(Threshold::Percent(100.0)));
        assert_eq!("96M".parse(), Ok(Threshold::Bytes(96 << 20)));
        for text in ["101%", "-1%", "NaN%", "inf%", "%", "x%", "20%%", ""] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
