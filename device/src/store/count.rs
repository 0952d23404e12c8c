//! Running counters: relaxed atomics. Each is exact once the calls that change it have returned.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Adds.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

/// Subtracts.
pub(super) fn sub(counter: &AtomicU64, by: u64) {
    counter.fetch_sub(by, Relaxed);
}

/// Adds `new - old`, and touches nothing if they are equal.
pub(super) fn change(counter: &AtomicU64, old: u64, new: u64) {
    if old != new {
        counter.fetch_add(new.wrapping_sub(old), Relaxed);
    }
}
