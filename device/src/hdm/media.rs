//! The medium: compressed store, poison list and watermarks in one.

use std::{ops::Range, sync::Arc};

use super::Window;
use crate::store::{Block, Codec, StoreError, Usage};

/// Bytes a poison record is counted in (CXL 3.1, 8.2.10.9.4.1: units of 64 bytes).
pub const LINE_SIZE: u64 = 64;

/// What a load of a poisoned line returns, repeated over the 64 bytes. Never silently the old data.
pub const POISON_PATTERN: u64 = 0xdead_beef_bad0_c0de;

/// A threshold on free media.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Per cent of the physical size, 0.0..=100.0. Follows the physical size when that is changed.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

/// The two watermarks on *free* media. `low < high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermarks {
    /// Free media below this: low crossing (allocation blocked).
    pub low: Threshold,
    /// Free media above this: high crossing (allocation allowed again).
    pub high: Threshold,
}

/// What a medium is made from.
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

/// Where a poisoned line came from; the values are those of the poison list's error source field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PoisonSource {
    /// Unknown.
    Unknown = 0,
    /// External to the device.
    External = 1,
    /// Internal: here, a block that no longer fitted.
    Internal = 2,
    /// Injected.
    Injected = 3,
    /// Vendor-specific.
    Vendor = 7,
}

/// A run of poisoned lines with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonRecord {
    /// First byte (DPA), 64-byte aligned.
    pub dpa: u64,
    /// Length in bytes, a multiple of 64.
    pub length: u64,
    /// Where it came from.
    pub source: PoisonSource,
}

/// What the medium tells its listener. Sent from whichever thread caused it, with no lock of the medium held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaEvent {
    /// Free media fell below the low watermark.
    LowCrossing,
    /// Free media rose above the high watermark after a low crossing.
    HighCrossing,
    /// A block that no longer fitted was poisoned: its DPA (4 KiB).
    Overflow {
        /// First byte of the block.
        dpa: u64,
    },
}

/// Occupancy and its context, after a flush of the window.
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
    /// Bytes poisoned now.
    pub poisoned: u64,
    /// Blocks lost to overflow since the medium was last cleared.
    pub overflows: u64,
}

/// Why the medium refused.
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
        "the low watermark ({low} bytes) must be below the high watermark ({high} bytes), and both below the physical size ({physical} bytes)"
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

/// Called on every [`MediaEvent`].
pub type Listener = Box<dyn Fn(MediaEvent) + Send + Sync>;

/// The medium.
pub struct Media {}

impl Media {
    /// Injected poison records the list can hold (QEMU's cxl-type3 uses 256).
    pub const MAX_INJECTED: usize = 256;

    /// An empty medium.
    pub fn new(_config: &MediaConfig) -> Result<Arc<Self>, MediaError> {
        todo!()
    }

    /// HDM promised, bytes.
    pub fn capacity(&self) -> u64 {
        todo!()
    }

    /// Sets who hears of events; replaces the one before.
    pub fn set_listener(&self, _listener: Listener) {
        todo!()
    }

    /// Sets the window that holds lines of this medium, so that flushes and invalidations reach it.
    pub fn set_window(&self, _window: Arc<dyn Window>) {
        todo!()
    }

    /// Data path: the block as the guest must see it, poisoned lines as [`POISON_PATTERN`].
    pub fn load(&self, _block: u64, _out: &mut Block) {
        todo!()
    }

    /// Data path: a block written back. A line that was poisoned and differs from the pattern was overwritten: its
    /// poison is cleared. A block that does not fit is poisoned whole, and [`MediaEvent::Overflow`] is sent.
    pub fn store(&self, _block: u64, _data: &Block) {
        todo!()
    }

    /// Occupancy after flushing the window. Not from a window's handler.
    pub fn occupancy(&self) -> Occupancy {
        todo!()
    }

    /// Occupancy as the store counts it now, without a flush: never blocks, may lag by what is dirty in the window.
    pub fn occupancy_now(&self) -> Occupancy {
        todo!()
    }

    /// Media operation Zero / Sanitize: the range (4 KiB aligned) reads as zeros, holds no media, has no poison.
    pub fn zero(&self, _dpa: Range<u64>) -> Result<(), MediaError> {
        todo!()
    }

    /// Poisoned runs that overlap a range, ascending, joined where neighbours have one source.
    pub fn poison_list(&self, _dpa: Range<u64>) -> Vec<PoisonRecord> {
        todo!()
    }

    /// Poisons one line (64-byte aligned DPA): its data is lost, loads see the pattern. Injecting twice is no error.
    pub fn inject_poison(&self, _dpa: u64) -> Result<(), MediaError> {
        todo!()
    }

    /// Clears the poison of one line and writes `data` there.
    pub fn clear_poison(&self, _dpa: u64, _data: &[u8; LINE_SIZE as usize]) -> Result<(), MediaError> {
        todo!()
    }

    /// Changes the watermarks; a crossing that follows from it is sent at once.
    pub fn set_watermarks(&self, _watermarks: Watermarks) -> Result<(), MediaError> {
        todo!()
    }

    /// Changes the media that exists; a crossing that follows from it is sent at once.
    pub fn set_physical(&self, _bytes: u64) -> Result<(), MediaError> {
        todo!()
    }

    /// What the attached window holds outside the medium; zeros without a window.
    pub fn resident(&self) -> super::Resident {
        todo!()
    }

    /// Power cycle: contents, poison and counters gone, not blocked, no event sent.
    pub fn clear(&self) {
        todo!()
    }
}
