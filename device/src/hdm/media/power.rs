//! The power cycle, which takes no longer when more is stored.
//!
//! The medium gets an empty store and an empty poison list at once. The rest goes on in the background: the window drops
//! what it holds of the old contents, then the old store is given back to the host. Until the window is done, what it writes
//! back is ignored, commands wait, and what lets a client at the window must wait as well ([`Media::wait_until_clear`]):
//! the window's copies are the old contents.

use super::*;

impl Media {
    /// Power cycle: contents, poison and counters gone, not blocked, no event sent. The physical size and the watermarks
    /// stay. Returns before the window has dropped its copies: see [`Self::wait_until_clear`]. Not from a window's handler.
    pub fn power_cycle(self: &Arc<Self>) {
        let mut cycling = self.begin_command();
        *self.held.write() = 0..self.capacity;
        let store = self.store.load_full();
        match store.renewed() {
            Ok(empty) => self.store.store(Arc::new(empty)),
            // As good, but it takes its time.
            Err(error) => {
                tracing::warn!(%error, "power cycle: the store is emptied block by block");
                if let Err(error) = store.trim(0..store.blocks()) {
                    tracing::error!(%error, "power cycle");
                }
            }
        }
        let poison = self.change_poison(std::mem::take);
        self.overflows.store(0, Ordering::Relaxed);
        self.crossings.reset();
        *cycling = true;
        drop(cycling);

        let cycle = Cycle { media: Arc::clone(self), old: Some((store, poison)) };
        // If there can be no thread, it is dropped here.
        if let Err(error) = thread::Builder::new().name("power-cycle".into()).spawn(move || drop(cycle)) {
            tracing::warn!(%error, "no thread for the power cycle");
        }
    }

    /// Waits until the window holds nothing from before the last power cycle: as long as it takes to drop the pages that were
    /// resident, however much was stored. Not from a window's handler.
    pub fn wait_until_clear(&self) {
        drop(self.begin_command());
    }
}

/// A power cycle whose second half is its drop.
struct Cycle {
    media: Arc<Media>,
    /// Nothing is done with it but to drop it.
    old: Option<(Arc<Store>, PoisonList)>,
}

impl Drop for Cycle {
    fn drop(&mut self) {
        let media = &*self.media;
        if let Some(window) = media.window() {
            window.invalidate(0..media.capacity);
        }
        *media.held.write() = 0..0;
        *media.command.lock() = false;
        media.cycled.notify_all();
        // Last: it takes a tenth of a second and more for each GiB stored.
        drop(self.old.take());
    }
}
