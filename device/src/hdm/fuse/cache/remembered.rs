//! The pages evicted last, as many as the cache holds: one that comes back while it is remembered was worth keeping.

use std::collections::{HashMap, VecDeque};

/// Bounded: the oldest is forgotten for the newest.
#[derive(Debug)]
pub(super) struct Remembered {
    pages: HashMap<u64, Evicted>,
    /// In the order of their eviction, with its number. A page that came back has a place here still.
    order: VecDeque<(u64, u64)>,
    evictions: u64,
    bound: u64,
}

#[derive(Clone, Copy, Debug)]
struct Evicted {
    number: u64,
    level: u8,
}

impl Remembered {
    /// Nothing yet, and never more than `bound` pages.
    pub(super) fn new(bound: u64) -> Self {
        Self { pages: HashMap::new(), order: VecDeque::new(), evictions: 0, bound }
    }

    /// This page was evicted.
    pub(super) fn insert(&mut self, page: u64, level: u8) {
        self.evictions += 1;
        let number = self.evictions;
        self.pages.insert(page, Evicted { number, level });
        self.order.push_back((page, number));
        if self.order.len() as u64 > self.bound
            && let Some((page, number)) = self.order.pop_front()
            && self.pages.get(&page).is_some_and(|evicted| evicted.number == number)
        {
            self.pages.remove(&page);
        }
    }

    /// The level of a page that comes back, if it was evicted lately. It is forgotten here.
    pub(super) fn recall(&mut self, page: u64) -> Option<u8> {
        self.pages.remove(&page).map(|evicted| evicted.level)
    }
}
