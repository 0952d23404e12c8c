//! Watermark crossings in order: many threads store, and the listener receives Low before High.
//!
//! The gate is evaluated under a lock, the listener is called without one. The thread that finds no other delivering
//! delivers everything that is queued, including crossings that others add meanwhile.
//!
//! A store that crosses nothing takes no lock: it compares free media with the bounds that the gate has published. That
//! loses no crossing. A thread changes free media and then reads the bounds; a thread that changes the gate publishes its
//! bounds and then reads free media. Between the two steps each has a sequentially consistent fence, so at least one of
//! them sees what the other did.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use parking_lot::Mutex;

use super::watermark::{Crossing, Gate};

/// For a listener this far behind, a Low and a High that cancel out are dropped.
const MAX_PENDING: usize = 64;

/// How often each watermark was crossed since the start, delivered or not.
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

/// What the gate publishes for threads that hold no lock. The values need not be of one moment: see the module.
#[derive(Debug)]
struct Bounds {
    /// Free media below this crosses.
    floor: AtomicU64,
    /// Free media above this crosses.
    ceiling: AtomicU64,
    /// Free media that is not above this is short.
    high: AtomicU64,
}

impl Bounds {
    fn of(gate: &Gate) -> Self {
        let (floor, ceiling) = gate.quiet().into_inner();
        Self { floor: floor.into(), ceiling: ceiling.into(), high: gate.high().into() }
    }

    fn publish(&self, gate: &Gate) {
        let (floor, ceiling) = gate.quiet().into_inner();
        self.floor.store(floor, Ordering::Relaxed);
        self.ceiling.store(ceiling, Ordering::Relaxed);
        self.high.store(gate.high(), Ordering::Relaxed);
    }

    fn cross(&self, free: u64) -> bool {
        free < self.floor.load(Ordering::Relaxed) || free > self.ceiling.load(Ordering::Relaxed)
    }
}

/// The gate and the crossings not yet delivered.
#[derive(Debug)]
pub(super) struct Crossings {
    bounds: Bounds,
    state: Mutex<State>,
}

impl Crossings {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            bounds: Bounds::of(&gate),
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

    /// Replaces the gate by what `change` makes of it. [`Self::settle`] must follow.
    pub(super) fn change<E>(&self, change: impl FnOnce(&Gate) -> Result<Gate, E>) -> Result<(), E> {
        let mut state = self.state.lock();
        state.gate = change(&state.gate)?;
        self.bounds.publish(&state.gate);
        Ok(())
    }

    /// Power cycle: not blocked, nothing left to deliver.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.gate.reset();
        state.pending.clear();
        self.bounds.publish(&state.gate);
    }

    /// Evaluates the gate after free media or the gate has changed, and delivers the crossings. `free` reads the media
    /// that is free now; `deliver` is called with no lock held. Returns whether media is short: free media is not above the
    /// high watermark.
    pub(super) fn settle(&self, free: impl Fn() -> u64, deliver: impl Fn(Crossing)) -> bool {
        fence(Ordering::SeqCst);
        let now = free();
        if self.bounds.cross(now) {
            self.evaluate(free, deliver);
        }
        now <= self.bounds.high.load(Ordering::Relaxed)
    }

    #[cold]
    fn evaluate(&self, free: impl Fn() -> u64, deliver: impl Fn(Crossing)) {
        let mut state = self.state.lock();
        // Free media is read under the lock, so that an old figure cannot overtake a new one. It is read again after each
        // change of the gate, for threads that have changed it meanwhile and did not see the new bounds.
        while let Some(crossing) = state.gate.evaluate(free()) {
            self.bounds.publish(&state.gate);
            fence(Ordering::SeqCst);
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
            return;
        }
        state.delivering = true;
        while let Some(crossing) = state.pending.pop_front() {
            parking_lot::MutexGuard::unlocked(&mut state, || deliver(crossing));
        }
        state.delivering = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hdm::watermark::{Threshold, Watermarks};

    const PHYSICAL: u64 = 3000;
    const WATERMARKS: Watermarks = Watermarks { low: Threshold::Bytes(1200), high: Threshold::Bytes(1250) };

    /// Releases all threads at the same moment. They spin, because a thread that slept would come too late to race.
    #[derive(Default)]
    struct Start(AtomicU64);

    impl Start {
        fn wait(&self, threads: u64) {
            let all = (self.0.fetch_add(1, Ordering::SeqCst) / threads + 1) * threads;
            for spins in 1_u64.. {
                if self.0.load(Ordering::SeqCst) >= all {
                    return;
                }
                if spins.is_multiple_of(1000) {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Short rounds, which both threads begin at once. In each a thread changes how much media it holds, often so that one of
    /// them crosses a watermark and the other crosses back. After each the gate must agree with the media that is free.
    #[test]
    fn no_crossing_is_lost_or_doubled_when_threads_race() {
        const ROUNDS: u64 = 100_000;
        const THREADS: u64 = 2;
        const FREE: u64 = 2000;
        const HOLDINGS: [u64; 5] = [0, 300, 500, 700, 900];
        let Ok(gate) = Gate::new(WATERMARKS, PHYSICAL) else { panic!("the watermarks are in order") };
        let crossings = Crossings::new(gate);
        let (heard, lost) = (Mutex::new(Vec::new()), AtomicU64::new(0));
        let (free, start) = (AtomicU64::new(FREE), Start::default());
        std::thread::scope(|scope| {
            for seed in 1..=THREADS {
                let (crossings, heard, lost, free, start) = (&crossings, &heard, &lost, &free, &start);
                scope.spawn(move || {
                    let (mut noise, mut held) = (seed * 0x9e37_79b9_7f4a, 0_u64);
                    for _ in 0..ROUNDS {
                        noise ^= noise << 13;
                        noise ^= noise >> 7;
                        noise ^= noise << 17;
                        let holds = HOLDINGS[(noise % HOLDINGS.len() as u64) as usize];
                        start.wait(THREADS);
                        free.fetch_add(held.wrapping_sub(holds), Ordering::Relaxed);
                        held = holds;
                        crossings.settle(|| free.load(Ordering::Relaxed), |crossing| heard.lock().push(crossing));
                        start.wait(THREADS);
                        let free = free.load(Ordering::Relaxed);
                        let gate = crossings.gate();
                        // Not asserted here: a thread that panics leaves the other waiting.
                        if (free < gate.low() && !gate.blocked()) || (free > gate.high() && gate.blocked()) {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let (heard, crossed) = (heard.into_inner(), crossings.crossed());
        assert_eq!(lost.into_inner(), 0, "rounds after which a crossing was lost");
        assert!(crossed.low >= ROUNDS / 100, "hardly ever crossed: {crossed:?}");
        assert_eq!(crossed.low - crossed.high, u64::from(crossings.gate().blocked()));
        let alternating = [Crossing::Low, Crossing::High].into_iter().cycle();
        let expected = alternating.take((crossed.low + crossed.high) as usize);
        assert!(heard.into_iter().eq(expected), "not each was heard once, in order");
    }
}
