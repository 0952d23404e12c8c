//! The trapped window: each guest access is a message.
//!
//! Slow, but nothing is ever held outside the medium: accounting is exact after every access, a flush has nothing to do.

use std::{
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Resident, Window, bytes, media::Media};
use crate::store::BLOCK_SIZE;

/// The trapped window.
pub struct TrapWindow {
    media: Arc<Media>,
    loads: AtomicU64,
    stores: AtomicU64,
}

impl TrapWindow {
    /// A window onto this medium, joined to it.
    pub fn new(media: Arc<Media>) -> Arc<Self> {
        let window = Arc::new(Self { media, loads: AtomicU64::new(0), stores: AtomicU64::new(0) });
        window.media.set_window(&window);
        window
    }

    /// Bytes of an access that lie inside the capacity. A caller that checks passes them all.
    fn inside(&self, dpa: u64, length: usize) -> usize {
        usize::try_from(self.media.capacity().saturating_sub(dpa)).map_or(length, |room| room.min(length))
    }
}

impl Window for TrapWindow {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read(&self, dpa: u64, data: &mut [u8]) {
        let (inside, outside) = data.split_at_mut(self.inside(dpa, data.len()));
        self.loads.fetch_add(pages(dpa, inside.len()), Ordering::Relaxed);
        bytes::read(&self.media, dpa, inside);
        outside.fill(0);
    }

    fn write(&self, dpa: u64, data: &[u8]) {
        let inside = &data[..self.inside(dpa, data.len())];
        self.stores.fetch_add(pages(dpa, inside.len()), Ordering::Relaxed);
        bytes::write(&self.media, dpa, inside);
    }

    fn flush(&self) {}

    fn invalidate(&self, _dpa: Range<u64>) {}

    fn resident(&self) -> Resident {
        Resident {
            faults: self.loads.load(Ordering::Relaxed),
            written_back: self.stores.load(Ordering::Relaxed),
            ..Resident::default()
        }
    }
}

/// Pages that a range of bytes touches.
fn pages(dpa: u64, length: usize) -> u64 {
    let skip = dpa % BLOCK_SIZE as u64;
    (skip + length as u64).div_ceil(BLOCK_SIZE as u64) * u64::from(length > 0)
}
