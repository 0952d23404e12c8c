//! The medium: compressed store, poison list and watermarks in one.
//!
//! Two kinds of caller meet here. The data path ([`Media::load`], [`Media::store`]) runs in window handlers and waits
//! for nothing but short locks. Commands (zero, poison, power cycle) wait for the window, which waits for the data
//! path; they are serialised among themselves and hold only that lock while they wait.
//!
//! A command that changes bytes the window may hold a copy of *holds* their range: until the window has dropped its
//! copy, write-backs to it are stale and ignored. So a trimmed page is not resurrected by a late write-back.

mod command;
mod power;

use std::{
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use self::command::bad_watermarks;
use super::{
    Window,
    crossings::Crossings,
    poison::{self, PoisonList},
    watermark::{Gate, Invalid},
};
pub use super::{
    crossings::Crossed,
    poison::{LINE_SIZE, POISON_PATTERN, PoisonPage, PoisonRecord, PoisonSource},
    watermark::{Crossing, Threshold, Watermarks},
};
use crate::store::{BLOCK_SIZE, Block, Codec, RecompressStep, Recompressed, Store, StoreConfig, StoreError, Usage};
use cxl_cram_kit::size::format_bytes;

/// Bytes [`Media::zero`] holds back from the window at a time.
const ZERO_CHUNK: u64 = 16 << 20;

/// Locks that serialise calls on one block; blocks share them by their low bits.
const BLOCK_LOCKS: usize = 64;

/// The configuration of a medium.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// HDM promised to the guest, in bytes, a multiple of 256 MiB.
    pub capacity: u64,
    /// Media that exists, in bytes, a multiple of 4 KiB.
    pub physical: u64,
    /// The codec.
    pub codec: Codec,
    /// The watermarks.
    pub watermarks: Watermarks,
}

/// An event for the medium's listeners. Sent from the thread that caused it, with no lock of the medium held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaEvent {
    /// Free media crossed a watermark.
    Crossed(Crossing),
    /// A block that no longer fitted was poisoned: its DPA (4 KiB).
    Overflow {
        /// First byte of the block.
        dpa: u64,
    },
    /// Poisoned lines of one block were loaded through the window: the span from the first of them to the last.
    PoisonRead {
        /// First byte of the first line.
        dpa: u64,
        /// Bytes to the end of the last line.
        length: u64,
    },
}

/// Occupancy and its context. After a flush or without one: see [`Media::occupancy`] and [`Media::occupancy_now`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    /// HDM promised, bytes.
    pub capacity: u64,
    /// The store's figures.
    pub usage: Usage,
    /// Low watermark in bytes of free media.
    pub low_watermark: u64,
    /// High watermark in bytes of free media.
    pub high_watermark: u64,
    /// True between a low crossing and the high crossing that follows.
    pub blocked: bool,
    /// Crossings of the watermarks since the start.
    pub crossed: Crossed,
    /// Bytes poisoned now.
    pub poisoned: u64,
    /// Blocks lost to overflow since the medium was last cleared.
    pub overflows: u64,
    /// The result of recompression since the start.
    pub recompressed: Recompressed,
    /// Bytes that the guest has stored and that are not in these figures yet: 0 if they are exact, and always 0 from
    /// [`Media::occupancy_now`].
    pub lag: u64,
}

/// Why a request to the medium failed.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// An address or length outside the capacity or not aligned.
    #[error("DPA {dpa:#x}+{length:#x} is outside the capacity or not aligned to {align} bytes")]
    BadRange {
        /// First byte.
        dpa: u64,
        /// Bytes.
        length: u64,
        /// Alignment asked for.
        align: u64,
    },
    /// The watermarks do not make sense.
    #[error(
        "the low watermark ({}) must be below the high watermark ({}), and both below the physical size ({})",
        format_bytes(*low), format_bytes(*high), format_bytes(*physical)
    )]
    BadWatermarks {
        /// Low, bytes.
        low: u64,
        /// High, bytes.
        high: u64,
        /// Physical, bytes.
        physical: u64,
    },
    /// The poison list is full ([`Media::MAX_INJECTED`] injected records).
    #[error("the poison list holds as many injected records as it can; clear some first")]
    PoisonListFull,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is called on every [`MediaEvent`].
type Listener = Arc<dyn Fn(MediaEvent) + Send + Sync>;

/// The medium.
pub struct Media {
    capacity: u64,
    /// Replaced by an empty one in a power cycle.
    store: ArcSwap<Store>,
    /// Serialises commands. Never taken on the data path. True while a power cycle goes on in the background.
    command: Mutex<bool>,
    /// That is over.
    cycled: Condvar,
    /// The range a command holds. Read-locked for the whole of a store, so that taking it waits for those under way.
    held: RwLock<Range<u64>>,
    block_locks: [Mutex<()>; BLOCK_LOCKS],
    poison: Mutex<PoisonList>,
    /// Bytes poisoned, so that the data path can pass by an empty list.
    poisoned: AtomicU64,
    overflows: AtomicU64,
    crossings: Crossings,
    listeners: RwLock<Vec<Listener>>,
    window: RwLock<Option<Weak<dyn Window>>>,
    /// Holds one token once media was found short: what recompression waits for.
    short: (Sender<()>, Receiver<()>),
}

impl Media {
    /// How long [`Self::occupancy`] waits for the flush. A guest's processor waits with it, and QEMU's main loop.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// Injected poison records the list can hold (QEMU's cxl-type3 uses 256).
    pub const MAX_INJECTED: usize = PoisonList::MAX_INJECTED;

    /// An empty medium.
    pub fn new(config: &MediaConfig) -> Result<Arc<Self>, MediaError> {
        let gate = Gate::new(config.watermarks, config.physical).map_err(|e| bad_watermarks(e, config.physical))?;
        let store = Store::new(&StoreConfig {
            blocks: config.capacity / BLOCK_SIZE as u64,
            physical: config.physical,
            codec: config.codec,
        })?;
        Ok(Arc::new(Self {
            capacity: config.capacity,
            store: ArcSwap::from_pointee(store),
            command: Mutex::new(false),
            cycled: Condvar::new(),
            held: RwLock::new(0..0),
            block_locks: [const { Mutex::new(()) }; BLOCK_LOCKS],
            poison: Mutex::new(PoisonList::default()),
            poisoned: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            crossings: Crossings::new(gate),
            listeners: RwLock::new(Vec::new()),
            window: RwLock::new(None),
            short: crossbeam_channel::bounded(1),
        }))
    }

    /// HDM promised, bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Adds a function to call on every event, after those added before. It may run in a window's handler: it must not
    /// call the methods of [`Media`] that wait for the window, nor take a lock that another thread holds while it is
    /// inside one of them.
    pub fn add_listener(&self, listener: impl Fn(MediaEvent) + Send + Sync + 'static) {
        self.listeners.write().push(Arc::new(listener));
    }

    /// Sets the window that holds lines of this medium, so that flushes and invalidations reach it. The windows of this
    /// crate do that when they are made. A window keeps its medium alive, not the other way round: the owner of the
    /// window must keep it.
    pub fn set_window(&self, window: &Arc<impl Window + 'static>) {
        let window = Arc::downgrade(window);
        *self.window.write() = Some(window);
    }

    /// Data path: the block as the guest must see it, poisoned lines as [`POISON_PATTERN`]. Sends
    /// [`MediaEvent::PoisonRead`] if there are any. Past the end: zeros.
    pub fn load(&self, block: u64, out: &mut Block) {
        let poisoned = self.fetch(block, out);
        self.poison_read(block, poisoned);
    }

    /// Data path: these bytes of a block, not empty, as [`Media::load`] gives all of them.
    pub(super) fn load_part(&self, block: u64, bytes: Range<usize>, out: &mut [u8]) {
        let mut whole = [0; BLOCK_SIZE];
        let poisoned = self.fetch(block, &mut whole);
        out.copy_from_slice(&whole[bytes.clone()]);
        self.poison_read(block, poisoned & line_mask(bytes.start as u64..bytes.end as u64));
    }

    /// The block as the guest must see it, and its poisoned lines. No event is sent.
    fn fetch(&self, block: u64, out: &mut Block) -> u64 {
        let _serial = self.lock_block(block);
        self.fetch_locked(block, out)
    }

    fn fetch_locked(&self, block: u64, out: &mut Block) -> u64 {
        match self.store.load().read(block, out) {
            Ok(()) => {}
            Err(StoreError::OutOfRange { .. }) => {
                out.fill(0);
                return 0;
            }
            Err(error) => {
                // What cannot be decompressed is lost, and lost data is poison, never zeros.
                tracing::error!(%error, "block lost");
                self.change_poison(|poison| poison.lose(block));
            }
        }
        if self.poisoned.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let (poisoned, hidden) = {
            let poison = self.poison.lock();
            (poison.mask(block), poison.hidden(block))
        };
        poison::overlay(out, hidden);
        poisoned
    }

    /// Data path: a block written back. A line that was poisoned loses its poison once all of it was overwritten, which is seen
    /// by that nothing of the pattern is left. A block that does not fit is poisoned whole, and [`MediaEvent::Overflow`] is
    /// sent.
    pub fn store(&self, block: u64, data: &Block) {
        self.write_back(block, |stale| self.store_fresh(block, data, stale));
    }

    /// Data path: these bytes of a block written back, not empty; the others stay as the guest sees them. Filling them in is
    /// no load of the guest's.
    pub(super) fn store_part(&self, block: u64, bytes: Range<usize>, data: &[u8]) {
        self.write_back(block, |stale| {
            let mut whole = [0; BLOCK_SIZE];
            self.fetch_locked(block, &mut whole);
            whole[bytes].copy_from_slice(data);
            self.store_fresh(block, &whole, stale)
        });
    }

    /// Stores a block by `store`, which is called with the block's lock held and given the bytes (DPA) that a command holds,
    /// and then sends what follows from it. Nothing is stored past the end or where all is held.
    fn write_back(&self, block: u64, store: impl FnOnce(Range<u64>) -> Result<(), MediaError>) {
        if block >= self.capacity / BLOCK_SIZE as u64 {
            return;
        }
        let result = {
            let held = self.held.read();
            let _serial = self.lock_block(block);
            let at = block * BLOCK_SIZE as u64;
            let stale = overlap(&held, &(at..at + BLOCK_SIZE as u64));
            if !stale.is_empty() && stale.end - stale.start == BLOCK_SIZE as u64 {
                return;
            }
            store(stale)
        };
        if result.is_err() {
            self.overflowed(block);
        }
        self.settle();
    }

    /// Stores a block whose lock is held, but for its stale bytes (DPA).
    fn store_fresh(&self, block: u64, data: &Block, stale: Range<u64>) -> Result<(), MediaError> {
        if stale.is_empty() {
            return self.store_locked(block, data, pattern_or_none(self.poison_mask(block), data), u64::MAX);
        }
        let at = block * BLOCK_SIZE as u64;
        let mut merged = *data;
        let mut kept = [0; BLOCK_SIZE];
        if self.store.load().read(block, &mut kept).is_ok() {
            let bytes = (stale.start - at) as usize..(stale.end - at) as usize;
            merged[bytes.clone()].copy_from_slice(&kept[bytes]);
        }
        let keep = line_mask(stale.start - at..stale.end - at);
        self.store_locked(block, &merged, keep | pattern_or_none(self.poison_mask(block), data), !keep)
    }

    /// Occupancy after flushing the window, which it waits for no longer than [`Self::PATIENCE`]. Not from a window's handler.
    pub fn occupancy(&self) -> Occupancy {
        let end = Instant::now() + Self::PATIENCE;
        let lag = self.flush_unless(&|| Instant::now() >= end);
        Occupancy { lag, ..self.occupancy_now() }
    }

    /// Flushes the window, unless `late` returns true before it has ended; the flush goes on in the background then. Returns
    /// the bytes not flushed. Not from a window's handler.
    pub fn flush_unless(&self, late: &dyn Fn() -> bool) -> u64 {
        self.window().map_or(0, |window| window.flush_unless(late))
    }

    /// Occupancy as the store counts it now, without a flush: never blocks.
    pub fn occupancy_lagging(&self) -> Occupancy {
        let lag = self.window().map_or(0, |window| window.dirty());
        Occupancy { lag, ..self.occupancy_now() }
    }

    /// Occupancy as the store counts it now, for callers that do not need the lag. Takes no time.
    pub fn occupancy_now(&self) -> Occupancy {
        let gate = self.crossings.gate();
        Occupancy {
            capacity: self.capacity,
            usage: self.store.load().usage(),
            low_watermark: gate.low(),
            high_watermark: gate.high(),
            blocked: gate.blocked(),
            crossed: self.crossings.crossed(),
            poisoned: self.poisoned.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            recompressed: self.store.load().recompressed(),
            lag: 0,
        }
    }

    /// Poisoned runs that overlap a range, ascending, joined where neighbours have one source and cut to the lines the
    /// range touches; at most so many, which is at least one. Takes time in proportion to the answer: it may end with fewer
    /// runs and a rest.
    pub fn poison_page(&self, dpa: Range<u64>, most: usize) -> PoisonPage {
        self.poison.lock().page(dpa, most)
    }

    /// All runs of [`Self::poison_page`]. Stores go on meanwhile, so the runs need not be of one moment.
    pub fn poison_list(&self, dpa: Range<u64>) -> Vec<PoisonRecord> {
        let mut all: Vec<PoisonRecord> = Vec::new();
        let mut rest = Some(dpa.start);
        while let Some(start) = rest {
            let page = self.poison_page(start..dpa.end, usize::MAX);
            let mut records = page.records.into_iter().peekable();
            if let Some(last) = all.last_mut()
                && let Some(first) = records.next_if(|first| last.continues(first))
            {
                last.length += first.length;
            }
            all.extend(records);
            rest = page.rest;
        }
        all
    }

    /// What the attached window holds outside the medium; zeros without a window.
    pub fn resident(&self) -> super::Resident {
        self.window().map(|window| window.resident()).unwrap_or_default()
    }

    /// One step of recompression (see [`Store::recompress`]); a crossing that follows from it is sent.
    pub(super) fn recompress(&self, from: u64, tries: usize) -> RecompressStep {
        let step = self.store.load().recompress(from, tries);
        if step.changed > 0 {
            self.settle();
        }
        step
    }

    /// Whether free media is not above the high watermark.
    pub(super) fn is_short(&self) -> bool {
        self.store.load().usage().free() <= self.crossings.gate().high()
    }

    /// Receives a token after media has become short. The shortage may be over by then: check [`Media::is_short`].
    pub(super) fn short(&self) -> &Receiver<()> {
        &self.short.1
    }

    /// Writes a block whose lock is held. Lines of `keep` keep the poison they have, the others lose it; the data of `seen` are
    /// what a load is to return, poisoned or not. On error the block is lost and poisoned whole.
    fn store_locked(&self, block: u64, data: &Block, keep: u64, seen: u64) -> Result<(), MediaError> {
        let result = self.store.load().write(block, data);
        if result.is_err() {
            self.change_poison(|poison| poison.lose(block));
        } else if self.poisoned.load(Ordering::Relaxed) != 0 {
            self.change_poison(|poison| {
                poison.clear(block, !keep);
                poison.written_in_part(block, seen);
            });
        }
        Ok(result?)
    }

    /// Reports that a block did not fit. The window still holds the data that the medium has lost and must drop that page,
    /// but later, because this may run in its own handler.
    fn overflowed(&self, block: u64) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
        let dpa = block * BLOCK_SIZE as u64;
        if let Some(window) = self.window() {
            window.invalidate_later(dpa..dpa + BLOCK_SIZE as u64);
        }
        self.notify(MediaEvent::Overflow { dpa });
    }

    /// Reports that these poisoned lines of a block were loaded, if there are any.
    fn poison_read(&self, block: u64, lines: u64) {
        if lines != 0 {
            let (first, end) = (u64::from(lines.trailing_zeros()), u64::from(u64::BITS - lines.leading_zeros()));
            let dpa = block * BLOCK_SIZE as u64 + first * LINE_SIZE;
            self.notify(MediaEvent::PoisonRead { dpa, length: (end - first) * LINE_SIZE });
        }
    }

    fn settle(&self) {
        let short = self
            .crossings
            .settle(|| self.store.load().usage().free(), |crossing| self.notify(MediaEvent::Crossed(crossing)));
        if short {
            // A token that is there already does as well.
            let _ = self.short.0.try_send(());
        }
    }

    fn notify(&self, event: MediaEvent) {
        let listeners = self.listeners.read().clone();
        for listener in listeners {
            listener(event);
        }
    }

    fn window(&self) -> Option<Arc<dyn Window>> {
        self.window.read().as_ref()?.upgrade()
    }

    fn lock_block(&self, block: u64) -> parking_lot::MutexGuard<'_, ()> {
        self.block_locks[(block % BLOCK_LOCKS as u64) as usize].lock()
    }

    fn poison_mask(&self, block: u64) -> u64 {
        if self.poisoned.load(Ordering::Relaxed) == 0 { 0 } else { self.poison.lock().mask(block) }
    }

    fn change_poison<T>(&self, change: impl FnOnce(&mut PoisonList) -> T) -> T {
        let mut poison = self.poison.lock();
        let result = change(&mut poison);
        self.poisoned.store(poison.bytes(), Ordering::Relaxed);
        result
    }
}

/// Poisoned lines that were not overwritten, or not all of them. A write-back carries whole pages, and the guest may be in the
/// middle of writing one: only a line that holds nothing of the pattern any more was overwritten.
fn pattern_or_none(poisoned: u64, data: &Block) -> u64 {
    if poisoned == 0 { 0 } else { poisoned & poison::pattern_lines(data) }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// The lines of a non-empty range of bytes inside a block.
fn line_mask(bytes: Range<u64>) -> u64 {
    (bytes.start / LINE_SIZE..bytes.end.div_ceil(LINE_SIZE)).fold(0, |mask, line| mask | 1 << line)
}
