//! The thread that reads ahead: it has the kernel read what [`super::readahead`] expects the guest to ask for.
//!
//! The kernel does it as it does any read-ahead: it takes pages that it does not have, locks them, and sends READ. So a page
//! that is resident is left alone, dirty or not, and a fault on one that is under way waits for its lock. That is why this
//! is `fadvise` and not FUSE's notify store: that one copies into whatever page there is, and a page that the guest faulted in
//! and stored to in the meantime would lose the stores.

use std::{
    num::NonZeroU64,
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

use fuser::Request;
use rustix::fs::Advice;

use super::{Shared, State, evict::Kernel, readahead::MAX_RUN};
use crate::store::BLOCK_SIZE;

/// Room that is made for pages to read ahead before they are read.
pub(super) const WANTED: u64 = 4 * MAX_RUN;

/// Which thread the reader is.
#[derive(Debug, Default)]
pub(super) struct Reader(AtomicU32);

impl Reader {
    /// Whether a request comes from it: the kernel names the thread that caused it.
    pub(super) fn is(&self, request: &Request) -> bool {
        request.pid() != 0 && request.pid() == self.0.load(Ordering::Relaxed)
    }
}

/// The reader.
pub(super) fn read_ahead(shared: &Shared, kernel: &Kernel) {
    shared.reader.0.store(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned(), Ordering::Relaxed);
    while let Some(pages) = next(shared) {
        let bytes = super::bytes_of(&pages);
        // A poisoned page is reported when it is loaded, and that is to be when the guest asks for it. The books are then above
        // what is resident, as they may be.
        if !shared.media.poison_list(bytes.clone()).is_empty() {
            continue;
        }
        let length = NonZeroU64::new(bytes.end - bytes.start);
        if let Err(error) = rustix::fs::fadvise(&kernel.file, bytes.start, length, Advice::WillNeed) {
            tracing::debug!(%error, "read-ahead");
        }
    }
}

/// The pages to read, entered in the books. None when the window stops.
fn next(shared: &Shared) -> Option<Range<u64>> {
    loop {
        // Not with the state locked: the medium has locks of its own.
        let stored = shared.media.occupancy_now().usage.logical() / BLOCK_SIZE as u64;
        let mut state = shared.state.lock();
        if state.stopping {
            return None;
        }
        let State { cache, readahead, .. } = &mut *state;
        if readahead.has_around() && !super::fits(stored.max(cache.resident()), cache) {
            readahead.crowd();
        }
        let wanted = readahead.wanted().min(MAX_RUN);
        if wanted == 0 {
            shared.ahead.wait(&mut state);
        } else if cache.resident() + wanted > cache.bound() {
            shared.wake.notify_one();
            shared.ahead.wait(&mut state);
        } else if let Some(pages) = readahead.next(|page| cache.contains(page)) {
            cache.enter(&pages);
            if state.excess(false) > 0 {
                shared.wake.notify_one();
            }
            return Some(pages);
        }
    }
}
