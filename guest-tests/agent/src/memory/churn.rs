//! Many threads write and verify pages while the same pages migrate back and forth.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cxl_cram_wire::pattern::{PAGE, Pattern, Verdict};

use super::numa;
use super::region::Region;

/// The most threads.
pub(super) const MAX_THREADS: u32 = 64;

/// What came of it.
pub(super) struct Churned {
    /// Every comparison of every thread.
    pub(super) verdict: Verdict,
    /// Requests to move the pages.
    pub(super) passes: u64,
    /// Pages that moved.
    pub(super) moved: u64,
}

/// Threads rewrite their pages `rounds` times. Before each time, and at the end, they compare the pages with what they wrote
/// last. Neighbouring pages belong to different threads. Meanwhile this thread moves all pages to each of `nodes` in turn.
///
/// # Errors
/// The pages cannot be moved at all, or there are no threads.
pub(super) fn churn(
    region: &mut Region,
    first: usize,
    pages: usize,
    (threads, rounds, seed): (u32, u32, u64),
    nodes: &[u32],
) -> io::Result<Churned> {
    let threads = threads.clamp(1, MAX_THREADS) as usize;
    let addresses = region.addresses(first, pages);
    let mut shares: Vec<Vec<(u64, &mut [u8; PAGE])>> = (0..threads).map(|_| Vec::new()).collect();
    let (all, _) = region.bytes(first + pages).as_chunks_mut::<PAGE>();
    for (number, page) in all.iter_mut().enumerate().skip(first) {
        shares[number % threads].push((number as u64, page));
    }
    let running = AtomicUsize::new(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let running = &running;
                scope.spawn(move || {
                    let verdict = work(share, rounds, seed);
                    running.fetch_sub(1, Ordering::Release);
                    verdict
                })
            })
            .collect();
        let (mut passes, mut moved) = (0, 0);
        let mut migration = Ok(());
        while running.load(Ordering::Acquire) > 0 && migration.is_ok() && !nodes.is_empty() {
            let node = nodes[passes as usize % nodes.len()];
            let mut before = Vec::with_capacity(pages);
            migration = numa::move_pages(&addresses, None, |status| before.push(status)).and_then(|()| {
                let mut page = 0;
                numa::move_pages(&addresses, Some(&|_| node), |status| {
                    moved += u64::from(status == node.cast_signed() && before.get(page) != Some(&status));
                    page += 1;
                })
            });
            passes += 1;
        }
        let mut verdict = Verdict::default();
        for worker in workers {
            verdict.add(worker.join().map_err(|_| io::Error::other("a thread panicked"))?);
        }
        migration.map(|()| Churned { verdict, passes, moved })
    })
}

fn work(mut share: Vec<(u64, &mut [u8; PAGE])>, rounds: u32, seed: u64) -> Verdict {
    let (mut verdict, mut expected) = (Verdict::default(), [0; PAGE]);
    for round in 0..=rounds {
        for (number, page) in &mut share {
            if round > 0 {
                pattern(round - 1, seed).make(*number, &mut expected);
                verdict.compare(*number, &expected, page);
            }
            if round < rounds {
                pattern(round, seed).make(*number, page);
            }
        }
    }
    verdict
}

/// Different content for each round, which takes more or less of the medium.
fn pattern(round: u32, seed: u64) -> Pattern {
    let seed = seed.wrapping_add(u64::from(round));
    Pattern::Compressible { seed, ratio: if round.is_multiple_of(2) { 2.0 } else { 8.0 } }
}
