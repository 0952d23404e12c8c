//! Watermark crossings as interrupts: vector 12 "lthresh", vector 13 "hthresh".
//!
//! One interrupt per crossing. A driver requests these vectors only after its region is up, so a crossing may come before
//! its vector is armed. The interrupt is then raised when the vector is armed, if the condition still holds.

use parking_lot::Mutex;

use super::{Msix, vectors};
use crate::hdm::media::Crossing;

/// The last crossing, until its interrupt has been delivered.
#[derive(Debug, Default)]
pub(super) struct WatermarkInterrupts {
    undelivered: Mutex<Option<Crossing>>,
}

impl WatermarkInterrupts {
    /// Raises the interrupt of a crossing. It replaces an earlier crossing that was not delivered: only the last state counts.
    pub(super) fn crossed(&self, crossing: Crossing, msix: &dyn Msix) {
        // Undelivered first: a vector armed between the two lines is raised once too often instead of never.
        *self.undelivered.lock() = Some(crossing);
        let vector = match crossing {
            Crossing::Low => vectors::LOW_THRESHOLD,
            Crossing::High => vectors::HIGH_THRESHOLD,
        };
        if msix.raise(vector) {
            self.delivered(crossing);
        }
    }

    /// The client has armed this vector. `blocked` is the state of the medium.
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

    /// Drops a crossing that was not delivered.
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
