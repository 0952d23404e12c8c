//! Interrupts that get lost on request.
//!
//! A message can be lost on its way, or a driver can be deaf at the wrong moment. A tester can therefore have the next
//! interrupts of a vector lost: the function raises them, takes them for delivered, and none reaches the host. A request lasts
//! until it is used up or replaced, across resets and power cycles.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{Msix, vectors};

/// Why interrupts cannot be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoseError {
    /// The function has no such vector.
    #[error("there is no vector {0}: give one from 0 to {last}", last = vectors::COUNT - 1)]
    NoVector(u16),
}

/// The way to the host, on which interrupts get lost.
pub(super) struct LossyMsix {
    host: Arc<dyn Msix>,
    /// How many are still to be lost, by vector.
    to_lose: Mutex<BTreeMap<u16, u64>>,
}

impl LossyMsix {
    pub(super) fn new(host: Arc<dyn Msix>) -> Self {
        Self { host, to_lose: Mutex::default() }
    }

    /// Loses the next `count` interrupts of a vector, in place of an earlier request for it. Returns how many were still to be
    /// lost.
    pub(super) fn lose(&self, vector: u16, count: u64) -> Result<u64, LoseError> {
        if vector >= vectors::COUNT {
            return Err(LoseError::NoVector(vector));
        }
        let mut to_lose = self.to_lose.lock();
        let before = if count == 0 { to_lose.remove(&vector) } else { to_lose.insert(vector, count) };
        Ok(before.unwrap_or(0))
    }

    /// Whether this interrupt is lost. Counts it.
    fn loses(&self, vector: u16) -> bool {
        let mut to_lose = self.to_lose.lock();
        let Some(left) = to_lose.get_mut(&vector) else { return false };
        *left -= 1;
        if *left == 0 {
            to_lose.remove(&vector);
        }
        true
    }
}

impl Msix for LossyMsix {
    fn raise(&self, vector: u16) -> bool {
        self.loses(vector) || self.host.raise(vector)
    }
}
