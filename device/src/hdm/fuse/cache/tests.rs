//! The cache alone: bound, books and who is passed over.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const FILE_PAGES: u64 = 64 * CHUNK_PAGES;
const BOUND: u64 = 16 * CHUNK_PAGES;

fn chunk(n: u64) -> Range<u64> {
    n * CHUNK_PAGES..(n + 1) * CHUNK_PAGES
}

/// Evicts one page and tells which.
fn evict(cache: &mut Cache) -> u64 {
    let victim = cache.victims(1).pop().unwrap();
    let page = victim.runs().next().unwrap().start;
    cache.finish(victim, false);
    page
}

#[test]
fn pages_that_never_came_back_go_in_the_order_they_came() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    [7, 400, 8, 9].into_iter().for_each(|n| cache.enter(&(n..n + 1)));
    assert_eq!([evict(&mut cache), evict(&mut cache), evict(&mut cache)], [7, 400, 8]);
}

#[test]
fn a_page_that_comes_back_soon_is_kept_while_others_pass() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..1));
    assert_eq!(evict(&mut cache), 0);
    cache.enter(&(0..1));
    for page in 1..FILE_PAGES {
        cache.enter(&(page..page + 1));
        if cache.resident() == BOUND {
            assert_ne!(evict(&mut cache), 0);
        }
    }
    assert!(cache.contains(0));
}

#[test]
fn a_page_that_comes_back_late_has_earned_nothing() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    for page in 0..=BOUND {
        cache.enter(&(page..page + 1));
        assert_eq!(evict(&mut cache), page);
    }
    cache.enter(&(0..1));
    let others = FILE_PAGES / 2;
    cache.enter(&(others..others + BOUND / PROBATION));
    assert_eq!(evict(&mut cache), 0);
}

#[test]
fn kept_pages_go_when_those_on_probation_are_few() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..10));
    cache.victims(10).into_iter().for_each(|victim| cache.finish(victim, false));
    cache.enter(&(0..10));
    cache.enter(&(100..110));
    assert_eq!(evict(&mut cache), 0, "ten on probation are less than their share");
    cache.enter(&(200..200 + BOUND / PROBATION));
    assert_eq!(evict(&mut cache), 100);
}

#[test]
fn a_page_is_found_although_all_others_of_its_kind_are_waited_for() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..1));
    assert_eq!(evict(&mut cache), 0);
    cache.enter(&(0..1));
    cache.enter(&(100..101));
    cache.park(&(1..2));
    assert_eq!(evict(&mut cache), 100);
}

#[test]
fn a_chunk_that_a_read_waits_for_is_not_evicted() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..1));
    cache.park(&(1..2));
    assert!(cache.victims(u64::MAX).is_empty());
    cache.unpark(&(1..2));
    assert_eq!(evict(&mut cache), 0);
}

#[test]
fn a_read_of_a_leaving_chunk_passes_although_the_cache_is_full() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..BOUND));
    assert!(!cache.admits(&chunk(20)));
    let victim = cache.victims(CHUNK_PAGES).pop().unwrap();
    assert!(cache.admits(&victim.span()), "the eviction waits for it");
    assert!(!cache.admits(&chunk(20)), "not gone yet");
    cache.finish(victim, false);
    assert!(cache.admits(&chunk(20)));
}

#[test]
fn pages_the_kernel_could_not_drop_stay_in_the_books() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.enter(&(0..10));
    let victim = cache.victims(10).pop().unwrap();
    cache.enter(&(5..12));
    assert_eq!(cache.resident(), 17, "those leaving and those read again");
    cache.finish(victim, true);
    assert_eq!(cache.resident(), 12);
    let everything = cache.victims(u64::MAX);
    assert_eq!(everything.iter().map(Leaving::count).sum::<u64>(), 12);
    everything.into_iter().for_each(|victim| cache.finish(victim, false));
    assert_eq!(cache.resident(), 0);
}

#[test]
fn a_write_back_makes_pages_resident_unless_they_are_leaving() {
    let mut cache = Cache::new(FILE_PAGES, BOUND);
    cache.written_back(&(30..34));
    assert_eq!(cache.resident(), 4);
    let leaving = cache.take(&(30..34));
    cache.written_back(&(30..34));
    leaving.into_iter().for_each(|leaving| cache.finish(leaving, false));
    assert_eq!(cache.resident(), 0);
}

#[test]
fn to_drop_all_of_a_large_file_takes_memory_for_the_resident_chunks_alone() {
    let pages = 8 << 28;
    let mut cache = Cache::new(pages, BOUND);
    cache.enter(&(0..1));
    cache.enter(&(pages - 1..pages));
    let leaving = cache.take(&(0..pages));
    assert_eq!(leaving.len(), 2);
    let allocated = cache.chunks.touched(0..u64::MAX).count();
    assert!(allocated <= 2 * 512, "{allocated} entries are allocated");
    leaving.into_iter().for_each(|one| cache.finish(one, false));
    assert_eq!(cache.resident(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, u64),
    Evict,
    Finish(bool),
    Drop(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..FILE_PAGES, 1..64_u64).prop_map(|(at, length)| Step::Read(at, length)),
        2 => Just(Step::Evict),
        2 => any::<bool>().prop_map(Step::Finish),
        1 => (0..FILE_PAGES, 1..200_u64).prop_map(|(at, length)| Step::Drop(at, length)),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    /// The kernel is modelled as a set of pages: a read adds them, a drop removes them when it ends.
    #[test]
    fn what_is_resident_is_always_in_the_books_and_admitted_reads_keep_the_bound(steps in steps()) {
        let mut cache = Cache::new(FILE_PAGES, BOUND);
        let mut kernel = BTreeSet::new();
        let mut leaving: VecDeque<Leaving> = VecDeque::new();
        for step in steps {
            match step {
                Step::Read(at, length) => {
                    let pages = at..(at + length).min(FILE_PAGES);
                    let waited_for =
                        leaving.iter().any(|l| l.span().start < pages.end && pages.start < l.span().end);
                    if cache.admits(&pages) {
                        let within = cache.resident() <= BOUND;
                        cache.enter(&pages);
                        kernel.extend(pages);
                        prop_assert!(cache.resident() <= BOUND || waited_for || !within);
                    } else {
                        prop_assert!(!waited_for);
                    }
                }
                Step::Evict => {
                    let excess = cache.excess(true, 0);
                    leaving.extend(cache.victims(excess.min(100)));
                }
                Step::Finish(busy) => {
                    if let Some(one) = leaving.pop_front() {
                        // Pages read again meanwhile came after the kernel had dropped them, or are dropped too.
                        let again = cache.chunks.get(one.chunk).unwrap().pages;
                        for (bit, page) in one.span().enumerate() {
                            if !busy && one.pages >> bit & 1 == 1 && again >> bit & 1 == 0 {
                                kernel.remove(&page);
                            }
                        }
                        cache.finish(one, busy);
                    }
                }
                Step::Drop(at, length) => leaving.extend(cache.take(&(at..(at + length).min(FILE_PAGES)))),
            }
            let booked: u64 = (0..(FILE_PAGES / CHUNK_PAGES) as u32)
                .map(|chunk| u64::from(cache.chunks.get(chunk).unwrap().pages.count_ones()))
                .sum();
            let on_the_way: u64 = leaving.iter().map(Leaving::count).sum();
            prop_assert_eq!(cache.resident(), booked + on_the_way);
            for page in &kernel {
                let chunk = (page / CHUNK_PAGES) as u32;
                let bit = 1 << (page % CHUNK_PAGES);
                let known = cache.chunks.get(chunk).unwrap().pages & bit != 0
                    || leaving.iter().any(|l| l.chunk == chunk && l.pages & bit != 0);
                prop_assert!(known, "page {} is resident and in no book", page);
            }
        }
        leaving.into_iter().for_each(|one| cache.finish(one, false));
        let everything = cache.victims(u64::MAX);
        everything.into_iter().for_each(|one| cache.finish(one, false));
        prop_assert_eq!(cache.resident(), 0, "everything can be evicted in one call");
    }
}

#[test]
fn ranges_meet_when_they_have_pages_in_the_same_chunk() {
    let chunk = |first: u64, pages: u64| first * CHUNK_PAGES..first * CHUNK_PAGES + pages;
    assert!(share_chunk(&chunk(1, 1), &(2 * CHUNK_PAGES - 1..2 * CHUNK_PAGES)));
    assert!(share_chunk(&chunk(0, 3 * CHUNK_PAGES), &chunk(1, 1)));
    assert!(!share_chunk(&chunk(0, CHUNK_PAGES), &chunk(1, 1)));
    assert!(!share_chunk(&chunk(2, 1), &chunk(1, CHUNK_PAGES)));
}
