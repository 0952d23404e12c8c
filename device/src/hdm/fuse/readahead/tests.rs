//! The streams alone: what is recognised, how far ahead is read, and what is learned.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const FILE: u64 = 1 << 20;
const MOST: u64 = 128;

/// A guest and a cache without a bound: whatever is wanted is read at once.
struct Guest {
    readahead: Readahead,
    resident: BTreeSet<u64>,
    faults: u64,
    read_ahead: u64,
}

impl Guest {
    fn new(file_pages: u64) -> Self {
        let readahead = Readahead::new(file_pages, MOST, 4 * MOST);
        Self { readahead, resident: BTreeSet::new(), faults: 0, read_ahead: 0 }
    }

    /// Returns the runs that are read ahead after it.
    fn access(&mut self, page: u64) -> Vec<Range<u64>> {
        if self.resident.contains(&page) {
            return Vec::new();
        }
        self.faults += 1;
        self.readahead.fault(page, |page| self.resident.contains(&page));
        self.resident.insert(page);
        let mut runs = Vec::new();
        while let Some(run) = self.readahead.next(|page| self.resident.contains(&page)) {
            assert!(run.end - run.start <= MAX_RUN);
            for page in run.clone() {
                assert!(self.resident.insert(page), "page {page} is resident and was read");
                self.read_ahead += 1;
            }
            runs.push(run);
        }
        runs
    }

    fn access_all(&mut self, pages: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
        pages.into_iter().flat_map(|page| self.access(page)).collect()
    }
}

/// An order without a pattern.
fn shuffled(n: u64) -> u64 {
    let x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 31).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

#[test]
fn three_pages_in_a_row_are_a_stream_and_two_are_none() {
    let mut guest = Guest::new(FILE);
    assert_eq!(guest.access_all([10, 11]), []);
    assert_eq!(guest.access(12), [13..17, 18..21], "all but the marker");
}

#[test]
fn a_stream_may_go_down() {
    let mut guest = Guest::new(FILE);
    assert_eq!(guest.access_all([1002, 1001, 1000]), [996..1000, 992..995]);
}

#[test]
fn accesses_a_few_pages_apart_are_a_stream_from_the_fourth_on() {
    let mut guest = Guest::new(FILE);
    assert_eq!(guest.access_all([100, 103, 106]), []);
    assert_eq!(guest.access(109)[..3], [112..113, 115..116, 118..119]);
    assert_eq!(guest.access_all([5000, 4990, 4980, 4970])[..2], [4960..4961, 4950..4951]);
    assert_eq!(guest.access_all([9000, 9100, 9200, 9300, 9400]), [], "too far apart");
}

#[test]
fn several_streams_are_recognised_between_scattered_accesses() {
    let mut guest = Guest::new(FILE);
    for n in 0..1000 {
        guest.access_all([n, 100_000 + n, 300_000 - n, 400_000 + 2 * n]);
        guest.access(500_000 + shuffled(n) % 100_000);
    }
    assert!(guest.faults < 1000 + 4 * 50, "{} faults of 5000 accesses, 1000 of them scattered", guest.faults);
    assert!(guest.readahead.used() > 3500);
}

#[test]
fn scattered_accesses_are_no_streams() {
    let mut guest = Guest::new(FILE);
    for n in 0..60_000 {
        // Only what is asked for now faults.
        guest.resident.clear();
        guest.access(shuffled(n) % 10_752);
    }
    assert!(guest.read_ahead < 600, "{} pages", guest.read_ahead);
}

#[test]
fn a_stream_that_proves_itself_is_read_further_ahead_up_to_the_most() {
    let mut guest = Guest::new(FILE);
    let batches: Vec<u64> = (0..4000)
        .map(|page| guest.access(page).iter().map(|run| run.end - run.start).sum())
        .filter(|&pages| pages > 0)
        .collect();
    assert_eq!(batches[..5], [7, 15, 31, 63, 127]);
    assert!(batches[5..].iter().all(|&pages| pages == 127));
    assert!(guest.faults < 50, "{} faults of 4000", guest.faults);
}

#[test]
fn streams_share_what_may_be_ahead() {
    let mut guest = Guest::new(FILE);
    for n in 0..4000 {
        guest.access_all((0..8).map(|stream| stream * 100_000 + n));
    }
    for stream in &guest.readahead.streams {
        assert_eq!(stream.batch, 4 * MOST / 8);
    }
}

#[test]
fn a_resident_page_is_not_read_and_is_no_marker() {
    let mut guest = Guest::new(FILE);
    guest.resident.extend([14, 17]);
    assert_eq!(guest.access_all([10, 11, 12]), [13..14, 15..17, 18..19, 20..23], "19 is the marker instead of 17");
}

#[test]
fn a_stream_goes_on_behind_pages_that_are_resident() {
    let mut guest = Guest::new(FILE);
    guest.resident.extend(20..1000);
    guest.access_all(0..=1023);
    assert_eq!(guest.faults, 6, "three to begin, and the markers 7, 19, 1023");
}

#[test]
fn pages_count_as_used_when_the_guest_comes_past_them() {
    let mut guest = Guest::new(FILE);
    guest.access_all(10..=16);
    assert_eq!((guest.read_ahead, guest.readahead.used()), (7, 0), "no fault, no sign");
    guest.access(17);
    assert_eq!(guest.readahead.used(), 4);
}

#[test]
fn pages_evicted_before_their_use_end_the_stream() {
    let mut guest = Guest::new(FILE);
    guest.access_all([10, 11, 12]);
    guest.resident.clear();
    assert_eq!(guest.access(13), []);
    assert_eq!(guest.readahead.streams.len(), 0);
    assert_eq!(guest.readahead.wanted(), 0);
}

#[test]
fn streams_that_end_unused_make_the_next_ones_start_smaller_and_one_that_goes_on_larger() {
    let mut guest = Guest::new(FILE);
    let start = |guest: &mut Guest, at: u64| -> u64 {
        guest.access_all([at, at + 1, at + 2]).iter().map(|run| run.end - run.start).sum()
    };
    assert_eq!(start(&mut guest, 1000), FIRST - 1);
    for n in 2..100 {
        start(&mut guest, n * 1000);
    }
    assert_eq!(start(&mut guest, 100_000), 1);
    guest.access_all(100_000..104_000);
    assert!(start(&mut guest, 200_000) > 1);
}

#[test]
fn nothing_is_read_past_the_end_or_before_the_start() {
    let mut guest = Guest::new(20);
    guest.access_all([13, 14, 15]);
    assert!((16..20).all(|page| guest.resident.contains(&page)), "the marker would be page 20");
    assert_eq!(guest.readahead.wanted(), 0);
    let mut guest = Guest::new(20);
    guest.access_all([4, 3, 2]);
    assert!((0..2).all(|page| guest.resident.contains(&page)));
    assert_eq!(guest.readahead.wanted(), 0);
}

#[test]
fn neighbours_are_read_while_there_is_room_for_all() {
    let mut readahead = Readahead::new(FILE, MOST, 4 * MOST);
    readahead.around(70, |_| false);
    assert_eq!(readahead.next(|page| page == 70), Some(64..70));
    assert_eq!(readahead.next(|page| page <= 70), Some(71..96));
    assert_eq!(readahead.next(|page| page < 96), None);
    readahead.around(70, |_| false);
    readahead.crowd();
    readahead.around(1000, |_| false);
    assert_eq!((readahead.next(|_| false), readahead.wanted()), (None, 0));
}

#[test]
fn a_fault_beside_pages_that_are_there_goes_on_from_them() {
    let mut readahead = Readahead::new(FILE, MOST, 4 * MOST);
    readahead.around(64, |page| page <= 64);
    assert_eq!(readahead.next(|page| page <= 64), Some(65..69));
    readahead.around(5000, |page| page >= 5000);
    let there = |page| page <= 68 || page >= 5000;
    assert_eq!([readahead.next(there), readahead.next(there)], [Some(4996..5000), Some(70..73)]);
}

#[test]
fn turned_off_it_reads_nothing() {
    let mut readahead = Readahead::new(FILE, 0, MOST);
    for page in 0..100 {
        assert!(!readahead.fault(page, |_| false));
    }
    assert_eq!((readahead.wanted(), readahead.next(|_| false)), (0, None));
}

proptest! {
    #[test]
    fn whatever_faults_its_state_stays_small_and_what_it_reads_is_in_the_file_and_not_resident(
        file in 1..5000_u64,
        most in 0..300_u64,
        share in 0..300_u64,
        steps in prop::collection::vec((0..5000_u64, 0..4_u64, any::<bool>()), 0..300),
    ) {
        let mut readahead = Readahead::new(file, most, share);
        let mut resident = BTreeSet::new();
        for (page, length, drop) in steps {
            for page in page..page + length {
                let page = page.min(file - 1);
                if readahead.fault(page, |page| resident.contains(&page)) {
                    readahead.around(page, |page| resident.contains(&page));
                }
                resident.insert(page);
            }
            prop_assert!(readahead.streams.len() <= STREAMS && readahead.recent.len() <= RECENT);
            prop_assert!(readahead.around.len() <= AROUND);
            let mut read = 0;
            while let Some(run) = readahead.next(|page| resident.contains(&page)) {
                prop_assert!(run.start < run.end && run.end <= file && run.end - run.start <= MAX_RUN);
                prop_assert!(run.clone().all(|page| resident.insert(page)));
                read += run.end - run.start;
            }
            prop_assert!(read <= STREAMS as u64 * 2 * most.max(FIRST) + AROUND as u64 * MAX_RUN);
            prop_assert_eq!(readahead.wanted(), 0);
            if drop {
                resident.clear();
            }
        }
    }
}
