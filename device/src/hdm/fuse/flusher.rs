//! The flusher: bounds how far accounting lags behind guest stores, and writes back for callers that cannot wait for the end.
//!
//! One thread makes one pass over the window's file after the other. A pass that began after a request covers every store
//! made before it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Shared, evict::Kernel, pagecache};

/// How often a request asks whether it is late.
const LOOK: Duration = Duration::from_millis(10);

/// The passes, which are numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    passes: Mutex<Passes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Passes {
    wanted: u64,
    begun: u64,
    ended: u64,
    stopping: bool,
}

impl Flusher {
    /// Waits for a pass that begins now or later, but no longer than until `late`: the pass goes on then. Whether it has
    /// ended.
    pub(super) fn request(&self, late: &dyn Fn() -> bool) -> bool {
        let mut passes = self.passes.lock();
        let mine = passes.begun + 1;
        passes.wanted = passes.wanted.max(mine);
        self.changed.notify_all();
        while passes.ended < mine && !passes.stopping && !late() {
            self.changed.wait_for(&mut passes, LOOK);
        }
        passes.ended >= mine
    }

    /// Ends the thread after the pass under way.
    pub(super) fn stop(&self) {
        self.passes.lock().stopping = true;
        self.changed.notify_all();
    }

    /// The next pass may begin: `interval` is over since the last, or one is wanted. False if there is to be none.
    fn begin(&self, interval: Duration) -> bool {
        let due = Instant::now() + interval;
        let mut passes = self.passes.lock();
        while passes.wanted <= passes.begun && !passes.stopping {
            if self.changed.wait_until(&mut passes, due).timed_out() {
                break;
            }
        }
        passes.begun += 1;
        !passes.stopping
    }

    fn end(&self) {
        let mut passes = self.passes.lock();
        passes.ended = passes.begun;
        self.changed.notify_all();
    }
}

/// The thread.
pub(super) fn flush(shared: &Shared, kernel: &Kernel, interval: Duration) {
    while shared.flusher.begin(interval) {
        if let Err(error) = pagecache::write_back(&kernel.file, &(0..shared.capacity)) {
            tracing::warn!(%error, "background write-back of the window");
        }
        shared.flusher.end();
    }
}
