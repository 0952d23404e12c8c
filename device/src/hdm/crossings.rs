//! Crossings in order: many threads store, one listener hears Low before High.
//!
//! The gate is evaluated under a lock, the listener is called without one. Whoever finds nobody delivering delivers
//! what is queued, also what others add meanwhile.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::watermark::{Crossing, Gate};

/// A listener this far behind is not told of a Low and High that cancel out.
const MAX_PENDING: usize = 64;

/// How often each watermark was crossed since the start, told or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// Free media fell below the low watermark.
    pub low: u64,
    /// Free media rose above the high watermark after that.
    pub high: u64,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    crossed: Crossed,
    pending: VecDeque<Crossing>,
    delivering: bool,
}

/// The gate and the crossings not yet told.
#[derive(Debug)]
pub(super) struct Crossings {
    state: Mutex<State>,
}

impl Crossings {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            state: Mutex::new(State { gate, crossed: Crossed::default(), pending: VecDeque::new(), delivering: false }),
        }
    }

    /// The gate as it is now.
    pub(super) fn gate(&self) -> Gate {
        self.state.lock().gate
    }

    /// The crossings so far.
    pub(super) fn crossed(&self) -> Crossed {
        self.state.lock().crossed
    }

    /// Replaces the gate by what `change` makes of it.
    pub(super) fn change<E>(&self, change: impl FnOnce(&Gate) -> Result<Gate, E>) -> Result<(), E> {
        let mut state = self.state.lock();
        state.gate = change(&state.gate)?;
        Ok(())
    }

    /// Power cycle: not blocked, nothing left to tell.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.gate.reset();
        state.pending.clear();
    }

    /// Evaluates the gate and tells what was crossed. `free` is read under the lock, so that an old figure cannot
    /// overtake a new one; `tell` is called with no lock held. Returns whether media is short: free media is not above
    /// the high watermark.
    pub(super) fn settle(&self, free: impl FnOnce() -> u64, tell: impl Fn(Crossing)) -> bool {
        let mut state = self.state.lock();
        let free = free();
        let short = free <= state.gate.high();
        if let Some(crossing) = state.gate.evaluate(free) {
            match crossing {
                Crossing::Low => state.crossed.low += 1,
                Crossing::High => state.crossed.high += 1,
            }
            // Crossings alternate, so the last one pending is the opposite of this one.
            if state.pending.len() < MAX_PENDING {
                state.pending.push_back(crossing);
            } else {
                state.pending.pop_back();
            }
        }
        if state.delivering {
            return short;
        }
        state.delivering = true;
        while let Some(crossing) = state.pending.pop_front() {
            parking_lot::MutexGuard::unlocked(&mut state, || tell(crossing));
        }
        state.delivering = false;
        short
    }
}
