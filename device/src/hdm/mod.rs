//! Host-managed device memory: the medium and the windows onto it.
//!
//! [`media::Media`] is what the device keeps: the compressed store, the poison list and the watermarks. A
//! [`Window`] is how guest loads and stores reach it: [`fuse`] (QEMU maps a file of a FUSE file system, accesses run
//! at native speed) or [`trap`] (each access is a message). [`recompressor`] makes room in it when media is short.

mod bytes;
mod crossings;
pub mod fuse;
pub mod media;
mod poison;
pub mod recompressor;
pub mod trap;
mod watermark;

use std::{ops::Range, os::fd::BorrowedFd};

/// A way for guest loads and stores to reach the medium. Addresses are DPA.
///
/// None of these but [`Window::invalidate_later`] may be called from the window's own request handlers: they wait for
/// them.
pub trait Window: Send + Sync {
    /// The file to hand to QEMU for mapping, if accesses are native. Its size is at least the capacity.
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>>;

    /// A trapped read (REGION_READ of BAR2). The range lies inside the capacity.
    fn read(&self, dpa: u64, data: &mut [u8]);

    /// A trapped write (REGION_WRITE of BAR2). The range lies inside the capacity.
    fn write(&self, dpa: u64, data: &[u8]);

    /// Sends every dirty byte the window holds to the medium; when it returns, occupancy is exact for all stores that
    /// the guest made before the call.
    fn flush(&self);

    /// As [`Window::flush`], but waits no longer once `late` returns true; the flush goes on without it. Returns the bytes that
    /// the medium does not have yet, 0 if it has all. A window whose flush takes no time need not ask.
    fn flush_unless(&self, _late: &dyn Fn() -> bool) -> u64 {
        self.flush();
        0
    }

    /// Bytes stored that the medium does not have yet. By default none.
    fn dirty(&self) -> u64 {
        0
    }

    /// Writes back and drops what the window holds of a range, so that the next guest load asks the medium.
    fn invalidate(&self, dpa: Range<u64>);

    /// As [`Window::invalidate`], but soon and from another thread: the only method handlers may call. Nothing to do for
    /// a window that keeps no copies.
    fn invalidate_later(&self, _dpa: Range<u64>) {}

    /// The window's residency now, and its counters since the start. Flushes nothing.
    fn resident(&self) -> Resident;
}

/// The data that a window holds outside the medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Decompressed bytes held.
    pub bytes: u64,
    /// The bound on them.
    pub bound: u64,
    /// Loads that had to ask the medium, in pages, since the start.
    pub faults: u64,
    /// Pages loaded before the guest asked for them, since the start.
    pub prefetched: u64,
    /// Those among them that the guest is known to have come to.
    pub prefetched_used: u64,
    /// Pages written back since the start.
    pub written_back: u64,
    /// Pages dropped to keep the bound since the start.
    pub evicted: u64,
}
