//! Watermark crossings as interrupts: vector 12 "lthresh", vector 13 "hthresh".
//!
//! One interrupt a crossing. A driver asks for these vectors only after its region is up, so a crossing may come before
//! anybody listens: what is still true is said again when the vector is armed.

use parking_lot::Mutex;

use super::{Msix, vectors};

/// A watermark was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crossing {
    /// Free media fell below the low watermark: stop allocating.
    Low,
    /// Free media rose above the high watermark: go on.
    High,
}

impl Crossing {
    fn vector(self) -> u16 {
        match self {
            Crossing::Low => vectors::LOW_THRESHOLD,
            Crossing::High => vectors::HIGH_THRESHOLD,
        }
    }
}

/// The last crossing, while nobody has heard of it.
#[derive(Debug, Default)]
pub(super) struct WatermarkInterrupts {
    undelivered: Mutex<Option<Crossing>>,
}

impl WatermarkInterrupts {
    /// Tells of a crossing. It takes the place of an earlier one that was not heard: only the last state counts.
    pub(super) fn crossed(&self, crossing: Crossing, msix: &dyn Msix) {
        // Undelivered first: a vector armed between the two lines says it once too often, not never.
        *self.undelivered.lock() = Some(crossing);
        if msix.raise(crossing.vector()) {
            self.delivered(crossing);
        }
    }

    /// Somebody listens to this vector now. `blocked` is the state of the medium.
    pub(super) fn vector_armed(&self, vector: u16, blocked: bool, msix: &dyn Msix) {
        let undelivered = *self.undelivered.lock();
        let crossing = match vector {
            vectors::LOW_THRESHOLD if blocked || undelivered == Some(Crossing::Low) => Crossing::Low,
            vectors::HIGH_THRESHOLD if undelivered == Some(Crossing::High) => Crossing::High,
            _ => return,
        };
        if msix.raise(vector) {
            self.delivered(crossing);
        }
    }

    /// Nothing is left to tell.
    pub(super) fn forget(&self) {
        *self.undelivered.lock() = None;
    }

    fn delivered(&self, crossing: Crossing) {
        let mut undelivered = self.undelivered.lock();
        if *undelivered == Some(crossing) {
            *undelivered = None;
        }
    }
}
