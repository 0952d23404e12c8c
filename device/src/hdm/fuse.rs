//! The FUSE window: QEMU maps a file whose pages this process fills and takes back.
//!
//! The kernel's page cache of that file is the cache of decompressed lines: accesses to resident pages run at native
//! speed, a fault becomes a READ, a write-back a WRITE. The parties that work on it, each in its file: [`fs`] answers the
//! kernel, [`evict`] keeps the cache bounded and [`flusher`] accounting fresh, [`reader`] reads ahead; [`cache`] decides what
//! goes and [`readahead`] what comes. See `docs/window.md`.

mod cache;
mod chunks;
mod evict;
mod flusher;
mod fs;
mod mount;
mod mounted;
mod pagecache;
mod readahead;
mod reader;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use fuser::BackgroundSession;
use parking_lot::{Condvar, Mutex};

pub use self::mounted::MountedWindow;
use self::{cache::Cache, evict::Kernel, flusher::Flusher, fs::Parked, readahead::Readahead, reader::Reader};
use super::{Resident, Window, media::Media};
use cxl_cram_kit::size::format_bytes;

use crate::{
    guardian::{Guardian, GuardianConfig},
    sandbox::User,
    store::BLOCK_SIZE,
};

/// Pages read ahead of all streams together take about this part of the cache.
const AHEAD: u64 = 8;

/// Threads that answer the kernel.
const HANDLERS: usize = 2;

/// What a window is made from.
#[derive(Clone, Debug)]
pub struct FuseConfig {
    /// Decompressed bytes that may be resident, at least [`FuseWindow::MIN_CACHE`].
    pub cache_bytes: u64,
    /// Accounting lags behind guest stores by at most this, plus the write-back itself.
    pub flush_interval: Duration,
    /// Most bytes the window reads ahead of one stream of accesses; a page or less for none, so that only pages which the
    /// guest touched become resident.
    pub readahead: u64,
    /// Bytes the kernel reads around each fault, 0 for none; it allows 128 KiB. For comparison: it knows nothing of streams.
    pub kernel_readahead: u32,
    /// Where the private directory is made.
    pub directory: PathBuf,
    /// The owner of the window's file, if it is not the user who mounts it: that takes root.
    pub owner: Option<User>,
    /// What the window's guardian removes besides it.
    pub guardian: GuardianConfig,
}

impl Default for FuseConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            flush_interval: Duration::from_millis(200),
            readahead: 1 << 20,
            kernel_readahead: 0,
            directory: std::env::temp_dir(),
            owner: None,
            guardian: GuardianConfig::default(),
        }
    }
}

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The cache is too small to evict from while reads are under way.
    #[error("a cache of {} is too small; it must be at least {}", format_bytes(*bytes), format_bytes(*least))]
    CacheTooSmall {
        /// Asked for.
        bytes: u64,
        /// Needed.
        least: u64,
    },
    /// `/dev/fuse` is not there or may not be opened.
    #[error("cannot open /dev/fuse; load the fuse module and allow this user to open it, or use --window trap")]
    NoFuse(#[source] io::Error),
    /// The private directory cannot be made.
    #[error("cannot make a directory for the window in {parent}; name another one")]
    Directory {
        /// Where.
        parent: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The mount failed.
    #[error("cannot mount the window; without root this needs fusermount3 (package fuse3), or use --window trap")]
    Mount(#[source] io::Error),
    /// The mounted file cannot be used.
    #[error("cannot open the file of the mounted window")]
    File(#[source] io::Error),
    /// There is no guardian, so nothing would unmount the window.
    #[error("cannot start the guardian of the window; raise the limits on processes and open files")]
    Guardian(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread for the window; raise the limit on processes")]
    Thread(#[source] io::Error),
}

/// What handlers, evictor and window share.
struct Shared {
    media: Arc<Media>,
    capacity: u64,
    /// Held for moments only, never while the kernel is asked for something.
    state: Mutex<State>,
    /// The evictor has something to do.
    wake: Condvar,
    /// The evictor has dropped the pages it was asked to.
    settled: Condvar,
    flusher: Flusher,
    /// The reader has something to do, or room for it.
    ahead: Condvar,
    reader: Reader,
    faults: AtomicU64,
    prefetched: AtomicU64,
    written_back: AtomicU64,
    evicted: AtomicU64,
    busy: AtomicU64,
    overruns: AtomicU64,
}

struct State {
    cache: Cache,
    readahead: Readahead,
    /// Reads that wait for room, at most [`fs::MAX_PARKED`].
    parked: VecDeque<Parked>,
    /// Blocks the medium has lost and the window must drop. Each was just written back: no more than are resident.
    later: BTreeSet<u64>,
    /// The evictor is at one of them.
    dropping: bool,
    stopping: bool,
}

impl Shared {
    fn new(media: Arc<Media>, config: &FuseConfig) -> Self {
        let capacity = media.capacity();
        let (pages, bound) = (capacity / BLOCK_SIZE as u64, config.cache_bytes / BLOCK_SIZE as u64);
        let most = Some(config.readahead / BLOCK_SIZE as u64).filter(|&most| most > 1).unwrap_or(0);
        Self {
            media,
            capacity,
            state: Mutex::new(State {
                cache: Cache::new(pages, bound),
                readahead: Readahead::new(pages, most, bound / AHEAD),
                parked: VecDeque::new(),
                later: BTreeSet::new(),
                dropping: false,
                stopping: false,
            }),
            wake: Condvar::new(),
            settled: Condvar::new(),
            flusher: Flusher::default(),
            ahead: Condvar::new(),
            reader: Reader::default(),
            faults: AtomicU64::new(0),
            prefetched: AtomicU64::new(0),
            written_back: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
        }
    }
}

impl State {
    /// Pages to evict now, for reads that wait and for what is to be read ahead.
    fn excess(&self, urgent: bool) -> u64 {
        self.cache.excess(urgent, self.readahead.expected().min(reader::WANTED))
    }

    /// The guest asked for these pages. Returns whether there is something to read ahead now.
    fn expect(&mut self, pages: &Range<u64>) -> bool {
        let Self { cache, readahead, .. } = self;
        for page in pages.clone() {
            let resident = |page| cache.contains(page);
            if readahead.fault(page, resident) && fits(cache.resident(), cache) {
                readahead.around(page, resident);
            }
        }
        readahead.wanted() > 0
    }
}

/// Whether this many pages leave room in the cache for as much read-ahead as one likes.
fn fits(pages: u64, cache: &Cache) -> bool {
    pages <= cache.bound() / 4 * 3
}

/// The bytes of a range of pages.
fn bytes_of(pages: &Range<u64>) -> Range<u64> {
    pages.start * BLOCK_SIZE as u64..pages.end * BLOCK_SIZE as u64
}

/// Pages that a range of bytes touches.
fn pages_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK_SIZE as u64..bytes.end.div_ceil(BLOCK_SIZE as u64)
}

/// The FUSE window. Unmounts and ends its threads when dropped; what a client still maps then is gone (SIGBUS).
pub struct FuseWindow {
    shared: Arc<Shared>,
    /// Taken by drop.
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    kernel: Arc<Kernel>,
    session: BackgroundSession,
    threads: Vec<JoinHandle<()>>,
    guardian: Guardian,
}

impl FuseWindow {
    /// The smallest cache: reads under way and a margin to evict ahead of them.
    pub const MIN_CACHE: u64 = 4 << 20;

    /// Mounts a window onto this medium, joined to it, and serves it.
    pub fn new(config: FuseConfig, media: Arc<Media>) -> Result<Arc<Self>, WindowError> {
        Self::mount(&config, media)?.serve()
    }

    fn kernel(&self) -> &Kernel {
        &self.running.as_ref().expect("taken by drop alone").kernel
    }

    /// Flushes, then waits until what the medium has lost meanwhile is dropped: the guest's next load of it asks the
    /// medium. Not from a handler.
    pub fn settle(&self) {
        self.flush();
        let mut state = self.shared.state.lock();
        while (!state.later.is_empty() || state.dropping) && !state.stopping {
            self.shared.settled.wait(&mut state);
        }
    }

    /// Evictions and invalidations after which pages were still there, in use or read again.
    pub fn busy(&self) -> u64 {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// Reads that were let through above the bound because no room could be made.
    pub fn overruns(&self) -> u64 {
        self.shared.overruns.load(Ordering::Relaxed)
    }
}

impl Window for FuseWindow {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.kernel().file.as_fd())
    }

    /// Through the page cache, so that it agrees with what a client has mapped.
    fn read(&self, dpa: u64, data: &mut [u8]) {
        if let Err(error) = self.kernel().file.read_exact_at(data, dpa) {
            tracing::error!(%error, "window read at DPA {dpa:#x}");
            data.fill(0);
        }
    }

    fn write(&self, dpa: u64, data: &[u8]) {
        let end = dpa.saturating_add(data.len() as u64);
        if end > self.shared.capacity {
            return;
        }
        {
            // A write of whole pages is not preceded by a read.
            let mut state = self.shared.state.lock();
            state.cache.enter(&pages_of(&(dpa..end)));
            if state.excess(false) > 0 {
                self.shared.wake.notify_one();
            }
        }
        if let Err(error) = self.kernel().file.write_all_at(data, dpa) {
            tracing::error!(%error, "window write at DPA {dpa:#x}");
        }
    }

    fn flush(&self) {
        if let Err(error) = pagecache::write_back(&self.kernel().file, &(0..self.shared.capacity)) {
            tracing::error!(%error, "write-back of the window");
        }
    }

    fn flush_unless(&self, late: &dyn Fn() -> bool) -> u64 {
        if self.shared.flusher.request(late) { 0 } else { self.dirty() }
    }

    fn dirty(&self) -> u64 {
        match pagecache::stat(&self.kernel().file, &(0..self.shared.capacity)) {
            Some(stat) => (stat.dirty + stat.writeback) * BLOCK_SIZE as u64,
            // Linux before 6.5 does not report it. No more than that.
            None => self.resident().bytes,
        }
    }

    fn invalidate(&self, dpa: Range<u64>) {
        let pages = pages_of(&(dpa.start..dpa.end.min(self.shared.capacity)));
        if !pages.is_empty() {
            let bytes = pages.start * BLOCK_SIZE as u64..pages.end * BLOCK_SIZE as u64;
            evict::invalidate(&self.shared, self.kernel(), &bytes);
        }
    }

    fn invalidate_later(&self, dpa: Range<u64>) {
        let mut state = self.shared.state.lock();
        state.later.extend(pages_of(&(dpa.start..dpa.end.min(self.shared.capacity))));
        self.shared.wake.notify_one();
    }

    fn resident(&self) -> Resident {
        let (resident, bound, used) = {
            let state = self.shared.state.lock();
            (state.cache.resident(), state.cache.bound(), state.readahead.used())
        };
        Resident {
            bytes: resident * BLOCK_SIZE as u64,
            bound: bound * BLOCK_SIZE as u64,
            faults: self.shared.faults.load(Ordering::Relaxed),
            prefetched: self.shared.prefetched.load(Ordering::Relaxed),
            prefetched_used: used,
            written_back: self.shared.written_back.load(Ordering::Relaxed),
            evicted: self.shared.evicted.load(Ordering::Relaxed),
        }
    }
}

impl Drop for FuseWindow {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if fs::in_handler() {
            // A handler that held the last reference cannot wait for itself.
            drop(thread::Builder::new().name("window-stop".into()).spawn(move || running.stop()));
        } else {
            running.stop();
        }
    }
}

impl Running {
    fn start(&mut self, name: &str, run: impl FnOnce(&Shared, &Kernel) + Send + 'static) -> io::Result<()> {
        let (shared, kernel) = (Arc::clone(&self.shared), Arc::clone(&self.kernel));
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || run(&shared, &kernel))?);
        Ok(())
    }

    fn stop(self) {
        // The medium outlives the window: write back the data that it does not have yet.
        if let Err(error) = pagecache::write_back(&self.kernel.file, &(0..self.shared.capacity)) {
            tracing::warn!(%error, "last write-back of the window");
        }
        self.shared.state.lock().stopping = true;
        self.shared.wake.notify_all();
        self.shared.flusher.stop();
        self.shared.ahead.notify_all();
        self.shared.settled.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the window panicked");
            }
        }
        let aborted = self.guardian.abort();
        drop(self.kernel);
        if !aborted {
            tracing::debug!("cannot abort the window's connection");
            // Its threads end when the last client lets go of the file, and it has no right to unmount.
            std::mem::forget(self.session);
        } else if let Err(error) = self.session.join() {
            tracing::warn!(%error, "the window's session ended badly");
        }
        // Unmounts, and removes the directory.
        drop(self.guardian);
    }
}
