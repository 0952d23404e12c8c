//! The one door to the device: every request that a command can make of it, whichever part serves it.

use std::{ops::Range, sync::Arc};

use crate::{
    control::{api, protocol::CommandError},
    cxl::{
        Injector,
        delay::{CommandDelay, DelayError},
        event_record::Record,
        events::Log,
        failure::{CommandFailure, FailureError},
        lost_interrupts::LoseError,
        ras::{Correctable, Header, Uncorrectable},
    },
    hdm::media::{Crossing, LINE_SIZE, Media, MediaError, PoisonPage, PoisonRecord, Watermarks},
    store::{Codec, Ratio},
    vfio_user::{Interrupts, Stop},
};

/// A running device, put together from its parts. Commands know only its methods.
pub struct DeviceCommands {
    /// The medium.
    pub media: Arc<Media>,
    /// The function, which reports injected events to the guest.
    pub injector: Arc<dyn Injector>,
    /// The interrupts of the vfio-user client, and whether there is one.
    pub interrupts: Arc<Interrupts>,
    /// What `quit` triggers.
    pub stop: Stop,
    /// The codec in use.
    pub codec: Codec,
    /// The kind of window: `fuse` or `trap`.
    pub window: &'static str,
}

impl From<MediaError> for CommandError {
    fn from(error: MediaError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<FailureError> for CommandError {
    fn from(error: FailureError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<DelayError> for CommandError {
    fn from(error: DelayError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<LoseError> for CommandError {
    fn from(error: LoseError) -> Self {
        Self::generic(error.to_string())
    }
}

impl DeviceCommands {
    /// The medium's occupancy and settings, after a flush of the window if `flush` is set.
    pub(super) fn status(&self, flush: bool) -> api::Status {
        let occupancy = if flush { self.media.occupancy() } else { self.media.occupancy_lagging() };
        let resident = self.media.resident();
        let usage = occupancy.usage;
        api::Status {
            client_connected: self.interrupts.has_client(),
            window: self.window.to_owned(),
            codec: self.codec.to_string(),
            capacity: occupancy.capacity,
            physical: usage.physical,
            used: usage.used,
            free: usage.free(),
            low_watermark: occupancy.low_watermark,
            high_watermark: occupancy.high_watermark,
            blocked: occupancy.blocked,
            crossings: api::Crossings { low: occupancy.crossed.low, high: occupancy.crossed.high },
            interrupts: self.interrupts.msix_signalled(),
            logical: usage.logical(),
            data: usage.data,
            metadata: usage.metadata,
            data_ratio: usage.data_ratio().map(Ratio::rounded),
            effective_ratio: usage.effective_ratio().map(Ratio::rounded),
            blocks: api::Blocks {
                compressed: usage.compressed_blocks,
                raw: usage.raw_blocks,
                same_filled: usage.same_filled_blocks,
            },
            recompressed_blocks: occupancy.recompressed.blocks,
            recompressed_saved: occupancy.recompressed.saved,
            poisoned: occupancy.poisoned,
            overflows: occupancy.overflows,
            lag: occupancy.lag,
            resident: api::Resident {
                bytes: resident.bytes,
                bound: resident.bound,
                faults: resident.faults,
                prefetched: resident.prefetched,
                prefetched_used: resident.prefetched_used,
                written_back: resident.written_back,
                evicted: resident.evicted,
            },
        }
    }

    /// HDM promised, bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.media.capacity()
    }

    /// Changes the media that exists. Returns the size in force.
    pub(super) fn set_physical(&self, bytes: u64) -> Result<u64, MediaError> {
        self.media.set_physical(bytes)?;
        Ok(self.media.occupancy_now().usage.physical)
    }

    /// Changes the watermarks.
    pub(super) fn set_watermarks(&self, watermarks: Watermarks) -> Result<(), MediaError> {
        self.media.set_watermarks(watermarks)
    }

    /// Poisoned runs of a range (DPA), at most so many.
    pub(super) fn poison_page(&self, dpa: Range<u64>, most: usize) -> PoisonPage {
        self.media.poison_page(dpa, most)
    }

    /// All poisoned runs of a range (DPA).
    pub(super) fn poison_list(&self, dpa: Range<u64>) -> Vec<PoisonRecord> {
        self.media.poison_list(dpa)
    }

    /// Poisons one line.
    pub(super) fn inject_poison(&self, dpa: u64) -> Result<(), MediaError> {
        self.media.inject_poison(dpa)
    }

    /// Clears the poison of one line, which reads as zeros from then on.
    pub(super) fn clear_poison(&self, dpa: u64) -> Result<(), MediaError> {
        self.media.clear_poison(dpa, &[0; LINE_SIZE as usize])
    }

    /// Shows the guest a crossing.
    pub(super) fn inject_crossing(&self, crossing: Crossing) {
        self.injector.inject_crossing(crossing);
    }

    /// Puts a record into an event log.
    pub(super) fn inject_event(&self, log: Log, record: Record) {
        self.injector.inject_event(log, record);
    }

    /// Sets an uncorrectable error in the RAS structure.
    pub(super) fn inject_uncorrectable(&self, error: Uncorrectable, header: &Header) {
        self.injector.inject_uncorrectable(error, header);
    }

    /// Sets a correctable error in the RAS structure.
    pub(super) fn inject_correctable(&self, error: Correctable) {
        self.injector.inject_correctable(error);
    }

    /// Makes mailbox commands fail. Returns how many were still to fail before.
    pub(super) fn fail_command(&self, failure: CommandFailure) -> Result<u64, FailureError> {
        self.injector.fail_command(failure)
    }

    /// Makes mailbox commands late. Returns how many were still to be late before.
    pub(super) fn delay_command(&self, delay: CommandDelay) -> Result<u64, DelayError> {
        self.injector.delay_command(delay)
    }

    /// Loses the next interrupts of a vector. Returns how many were still to be lost before.
    pub(super) fn lose_interrupt(&self, vector: u16, count: u64) -> Result<u64, LoseError> {
        self.injector.lose_interrupt(vector, count)
    }

    /// Stops the device.
    pub(super) fn quit(&self) {
        self.stop.trigger();
    }
}
