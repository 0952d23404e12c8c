//! The evictor: makes room, and drops what the medium has lost. It waits for handlers, so it holds no lock while it asks the
//! kernel.

use std::{fs::File, io, ops::Range, sync::atomic::Ordering, time::Duration};

use fuser::Notifier;

use super::{
    Shared, State,
    cache::{Leaving, share_chunk},
    fs::{self, Parked},
    pagecache,
};
use crate::store::BLOCK_SIZE;

/// Pages evicted in one go: their write-backs run while others are started.
const BATCH: u64 = 128;

/// How long to leave pages alone that the kernel could not drop.
const RETRY: Duration = Duration::from_millis(10);

/// Times an invalidation is tried while pages of the range stay cached.
const ATTEMPTS: usize = 3;

/// The window's file, and the notifier that makes the kernel drop pages of it.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) file: File,
    pub(super) notifier: Notifier,
}

impl Kernel {
    /// Writes a range back and drops it. Returns how many pages of it are cached afterwards, because they were in use or
    /// came back; 0 if the kernel cannot report that.
    fn drop_range(&self, bytes: &Range<u64>) -> io::Result<u64> {
        // In a batch first: pages that are still dirty are written one by one while they are dropped.
        pagecache::write_back(&self.file, bytes)?;
        self.notifier.inval_inode(fs::FILE, bytes.start as i64, (bytes.end - bytes.start) as i64)?;
        Ok(pagecache::stat(&self.file, bytes).map_or(0, |stat| stat.cached))
    }
}

enum Job {
    /// Blocks the medium has lost.
    Drop(Range<u64>),
    Evict(Vec<Leaving>),
    Stop,
}

/// The evictor.
pub(super) fn evict(shared: &Shared, kernel: &Kernel) {
    loop {
        let mut progress = true;
        match next_job(shared) {
            Job::Drop(bytes) => {
                let leaving = shared.state.lock().cache.take(&super::pages_of(&bytes));
                // A read that waits for room has its pages locked, and dropping them would wait for it. Nobody else answers
                // it; from now on none of these chunks is made to wait.
                answer_within(shared, &super::pages_of(&bytes));
                drop_taken(shared, kernel, &bytes, leaving);
                let mut state = shared.state.lock();
                state.dropping = false;
                shared.settled.notify_all();
            }
            Job::Evict(victims) => progress = evict_batch(shared, kernel, victims) > 0,
            Job::Stop => break,
        }
        answer_parked(shared, progress);
        if !progress {
            let mut state = shared.state.lock();
            if !state.stopping {
                shared.wake.wait_for(&mut state, RETRY);
            }
        }
    }
    answer_parked(shared, false);
}

fn next_job(shared: &Shared) -> Job {
    let mut state = shared.state.lock();
    loop {
        if state.stopping {
            return Job::Stop;
        }
        if let Some(bytes) = take_later(&mut state) {
            state.dropping = true;
            return Job::Drop(bytes);
        }
        let urgent = !state.parked.is_empty();
        let excess = state.excess(urgent);
        if urgent || excess > 0 {
            return Job::Evict(state.cache.victims(excess.min(BATCH)));
        }
        shared.wake.wait(&mut state);
    }
}

/// The first run of blocks to drop.
fn take_later(state: &mut State) -> Option<Range<u64>> {
    let first = state.later.pop_first()?;
    let mut end = first + 1;
    while state.later.remove(&end) {
        end += 1;
    }
    Some(first * BLOCK_SIZE as u64..end * BLOCK_SIZE as u64)
}

/// Evicts. Returns how many pages were dropped.
fn evict_batch(shared: &Shared, kernel: &Kernel, victims: Vec<Leaving>) -> u64 {
    for run in victims.iter().flat_map(Leaving::runs) {
        if let Err(error) = pagecache::start_write_back(&kernel.file, &super::bytes_of(&run)) {
            tracing::debug!(%error, "write-back");
        }
    }
    let mut evicted = 0;
    for victim in victims {
        let cached = victim.runs().map(|run| kernel.drop_range(&super::bytes_of(&run))).sum::<io::Result<u64>>();
        let mut state = shared.state.lock();
        let busy = !matches!(cached, Ok(cached) if cached <= state.cache.known(&victim));
        if busy {
            shared.busy.fetch_add(1, Ordering::Relaxed);
        } else {
            evicted += victim.count();
        }
        state.cache.finish(victim, busy);
        if state.readahead.wanted() > 0 {
            // It waits for room.
            shared.ahead.notify_one();
        }
    }
    shared.evicted.fetch_add(evicted, Ordering::Relaxed);
    evicted
}

/// Answers the reads for which there is room now; all of them when no room can be made.
fn answer_parked(shared: &Shared, only_admitted: bool) {
    loop {
        let parked: Parked = {
            let mut state = shared.state.lock();
            let Some(pages) = state.parked.front().map(Parked::pages) else { return };
            if !state.cache.admits(&pages) {
                if only_admitted {
                    return;
                }
                shared.overruns.fetch_add(1, Ordering::Relaxed);
            }
            let Some(parked) = state.parked.pop_front() else { return };
            state.cache.unpark(&pages);
            state.cache.enter(&pages);
            parked
        };
        parked.answer(shared);
    }
}

/// Answers the reads in the chunks of these pages, whether there is room or not.
fn answer_within(shared: &Shared, pages: &Range<u64>) {
    loop {
        let parked: Parked = {
            let mut state = shared.state.lock();
            let within = state.parked.iter().position(|parked| share_chunk(&parked.pages(), pages));
            let Some(parked) = within.and_then(|index| state.parked.remove(index)) else { return };
            let pages = parked.pages();
            shared.overruns.fetch_add(u64::from(!state.cache.has_room(&pages)), Ordering::Relaxed);
            state.cache.unpark(&pages);
            state.cache.enter(&pages);
            parked
        };
        parked.answer(shared);
    }
}

/// Writes back and drops a range of whole pages, on the caller's thread instead of the evictor's.
pub(super) fn invalidate(shared: &Shared, kernel: &Kernel, bytes: &Range<u64>) {
    let leaving = shared.state.lock().cache.take(&super::pages_of(bytes));
    drop_taken(shared, kernel, bytes, leaving);
}

fn drop_taken(shared: &Shared, kernel: &Kernel, bytes: &Range<u64>, leaving: Vec<Leaving>) {
    for attempt in 1..=ATTEMPTS {
        match kernel.drop_range(bytes) {
            Ok(0) => break,
            Ok(_) if attempt < ATTEMPTS => {}
            // In use, or read again already: both look the same from here.
            Ok(_) => {
                shared.busy.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel did not drop DPA {:#x}..{:#x} of the window", bytes.start, bytes.end);
                break;
            }
        }
    }
    let mut state = shared.state.lock();
    for leaving in leaving {
        state.cache.finish(leaving, false);
    }
}
