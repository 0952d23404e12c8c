//! Orders in which a program may go through more data than the window's cache holds, and what an LRU of single pages makes
//! of them. Shared by the tests and the bench.

use std::collections::{BTreeMap, HashMap};

/// 42 MiB of data.
pub(crate) const PAGES: usize = 10_752;

/// Accesses of a trace, one page each.
pub(crate) const ACCESSES: usize = 60_000;

/// A reproducible sequence without a pattern (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Every page once, in an order without a pattern.
    fn shuffled(&mut self) -> Vec<usize> {
        let mut pages: Vec<usize> = (0..PAGES).collect();
        for last in (1..PAGES).rev() {
            pages.swap(last, self.below(last + 1));
        }
        pages
    }
}

/// The traces by name.
pub(crate) fn traces() -> [(&'static str, Vec<usize>); 5] {
    [
        ("random", random()),
        ("90 % in 2 MiB, scattered", scattered()),
        ("zipf", zipf()),
        ("in order", in_order()),
        ("four in order, random between", streams_and_random()),
    ]
}

pub(crate) fn random() -> Vec<usize> {
    let mut random = Random(1);
    (0..ACCESSES).map(|_| random.below(PAGES)).collect()
}

/// Nine accesses of ten go to 512 pages that have nothing to do with each other, the tenth anywhere.
pub(crate) fn scattered() -> Vec<usize> {
    let mut random = Random(2);
    let pages = random.shuffled();
    let mut access = |_| if random.below(10) < 9 { pages[random.below(512)] } else { random.below(PAGES) };
    (0..ACCESSES).map(&mut access).collect()
}

/// The n-th page of a shuffled order has probability 1 / n.
pub(crate) fn zipf() -> Vec<usize> {
    let mut random = Random(3);
    let pages = random.shuffled();
    let mut total = 0.0;
    let sums: Vec<f64> = (1..=PAGES)
        .map(|rank| {
            total += 1.0 / rank as f64;
            total
        })
        .collect();
    (0..ACCESSES)
        .map(|_| {
            let at = random.next() as f64 / u64::MAX as f64 * total;
            pages[sums.partition_point(|&sum| sum < at).min(PAGES - 1)]
        })
        .collect()
}

/// From the first page to the last, again and again.
pub(crate) fn in_order() -> Vec<usize> {
    (0..ACCESSES).map(|access| access % PAGES).collect()
}

/// Four programs, each in order through all data from a quarter of its own on, in turn; after each round a random access.
pub(crate) fn streams_and_random() -> Vec<usize> {
    let mut random = Random(4);
    let mut access = |access| match access % 5 {
        4 => random.below(PAGES),
        stream => (stream * PAGES / 4 + access / 5) % PAGES,
    };
    (0..ACCESSES).map(&mut access).collect()
}

/// How many accesses miss in an LRU of this many pages that starts empty.
pub(crate) fn lru_misses(trace: &[usize], pages: usize) -> u64 {
    let mut last_access = HashMap::new();
    let mut by_age = BTreeMap::new();
    let mut misses = 0;
    for (now, &page) in trace.iter().enumerate() {
        match last_access.insert(page, now) {
            Some(before) => by_age.remove(&before),
            None => {
                misses += 1;
                None
            }
        };
        by_age.insert(now, page);
        if by_age.len() > pages
            && let Some((_, oldest)) = by_age.pop_first()
        {
            last_access.remove(&oldest);
        }
    }
    misses
}
