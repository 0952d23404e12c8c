//! Counters in memory that threads raise and read while the pages move. Moving a page must lose no store, and must never show
//! a reader older content than it has already seen.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use cxl_cram_wire::memory::Raced;
use libc::c_void;

use super::churn::MAX_THREADS;
use super::numa;
use super::region::Region;

/// How often each page must have moved, on average, before the threads may end.
const MOVES: u64 = 4;
/// The most attempts to reach that.
const PASSES: u64 = 2_000;

/// The words of a page that are used: the first, one in the middle, the last.
const WORDS: [usize; 3] = [0, 255, 511];

/// A page's counters.
struct Counters([*const AtomicU64; WORDS.len()]);

// SAFETY: they point into a region that outlives all threads, and atomics may be shared.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    /// # Safety
    /// The address is of a page that stays mapped, and that nothing else uses, as long as this value lives.
    unsafe fn new(page: *mut c_void) -> Self {
        // SAFETY: the words lie in the page, and are aligned.
        Self(WORDS.map(|word| unsafe { page.cast::<AtomicU64>().cast_const().add(word) }))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: as the caller of `new` promised.
        unsafe { &*self.0[index] }
    }

    /// Stores a round's number, from the first word to the last.
    fn store(&self, round: u64) {
        (0..WORDS.len()).for_each(|index| self.word(index).store(round, Ordering::Release));
    }

    /// Loads the words from the last to the first, so that none can be older than one that was stored after it.
    fn load(&self) -> [u64; WORDS.len()] {
        let mut words = [0; WORDS.len()];
        for index in (0..WORDS.len()).rev() {
            words[index] = self.word(index).load(Ordering::Acquire);
        }
        words
    }
}

/// Writers raise the counters of their pages `rounds` times, and go on until the pages have moved a few times. Meanwhile
/// readers check all pages, and this thread moves them to `node` over and over.
///
/// # Errors
/// There are no writers, or too many threads.
pub(super) fn race(
    region: &mut Region,
    first: usize,
    pages: usize,
    (readers, writers, rounds): (u32, u32, u64),
    node: u32,
) -> io::Result<Raced> {
    if writers == 0 || readers.saturating_add(writers) > MAX_THREADS {
        return Err(io::Error::other(format!("give at least one writer, and {MAX_THREADS} threads at most")));
    }
    let addresses = region.addresses(first, pages);
    // SAFETY: the pages are the region's, borrowed mutably until all threads have ended.
    let counters: Vec<_> = addresses.iter().map(|&page| unsafe { Counters::new(page) }).collect();
    counters.iter().for_each(|page| page.store(0));
    let (counters, writers) = (&counters, writers as usize);
    let (writing, over) = (AtomicUsize::new(writers), AtomicBool::new(false));
    let moved_enough = AtomicBool::new(false);
    let (mut raced, lasts) = thread::scope(|scope| -> io::Result<(Raced, Vec<u64>)> {
        let looking: Vec<_> = (0..readers).map(|_| scope.spawn(|| read(counters, &over))).collect();
        let writing_threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (writing, moved_enough) = (&writing, &moved_enough);
                scope.spawn(move || {
                    let mut round = 0;
                    while round < rounds || !moved_enough.load(Ordering::Acquire) {
                        round += 1;
                        counters.iter().skip(writer).step_by(writers).for_each(|page| page.store(round));
                    }
                    writing.fetch_sub(1, Ordering::Release);
                    round
                })
            })
            .collect();
        let mut raced = Raced::default();
        while writing.load(Ordering::Acquire) > 0 {
            if raced.stopped.is_some() {
                thread::yield_now();
                continue;
            }
            let (mut away, mut still) = (0, 0);
            let moved =
                numa::move_pages(&addresses, None, |at| away += u64::from(at != node.cast_signed())).and_then(|()| {
                    numa::move_pages(&addresses, Some(&|_| node), |at| still += u64::from(at != node.cast_signed()))
                });
            match moved {
                Ok(()) => raced.moved += away.saturating_sub(still),
                Err(error) => raced.stopped = Some(error.raw_os_error().unwrap_or_default()),
            }
            raced.passes += 1;
            if raced.stopped.is_some() || raced.moved >= MOVES * pages as u64 || raced.passes >= PASSES {
                moved_enough.store(true, Ordering::Release);
            }
        }
        over.store(true, Ordering::Release);
        for reader in looking {
            let seen = reader.join().map_err(|_| io::Error::other("a thread panicked"))?;
            raced.backward += seen.backward;
            raced.torn += seen.torn;
            raced.reads += seen.reads;
        }
        let mut lasts = Vec::new();
        for writer in writing_threads {
            lasts.push(writer.join().map_err(|_| io::Error::other("a thread panicked"))?);
        }
        Ok((raced, lasts))
    })?;
    for (page, &last) in counters.iter().zip(lasts.iter().cycle()) {
        raced.writes += last;
        raced.lost += page.load().iter().filter(|&&word| word != last).count() as u64;
    }
    Ok(raced)
}

/// Checks all pages until the race is over, at least once.
fn read(counters: &[Counters], over: &AtomicBool) -> Raced {
    let mut seen = Raced::default();
    let mut before = vec![[0; WORDS.len()]; counters.len()];
    loop {
        let last = over.load(Ordering::Acquire);
        for (page, before) in counters.iter().zip(&mut before) {
            let now = page.load();
            seen.reads += 1;
            seen.backward += u64::from(now.iter().zip(&*before).any(|(now, before)| now < before));
            seen.torn += u64::from(!now.is_sorted_by(|earlier, later| earlier >= later));
            *before = now;
        }
        if last {
            return seen;
        }
    }
}
