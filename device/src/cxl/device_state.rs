//! What the mailbox commands work on: the medium, the event logs, the clock, the background worker.
//!
//! No lock is held while an interrupt is raised or the medium is called: the medium's listener runs in here from
//! whichever thread stored the block.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::{
    Msix,
    background::Background,
    component::ComponentRegisters,
    delay::Delays,
    event_record::{Record, Transaction},
    events::{EventLogs, Log},
    failure::Failures,
    mailbox::{
        alert::AlertConfig,
        firmware::Firmware,
        health::health,
        payload_size::PayloadSize,
        poison::{ListCursor, ScanResults},
        timestamp::Timestamp,
    },
    watermark::WatermarkInterrupts,
};
use crate::hdm::media::{Crossing, Media, MediaEvent};

/// The device behind the mailbox.
pub(super) struct DeviceState {
    pub(super) media: Arc<Media>,
    /// Of the mailbox.
    pub(super) payload_size: PayloadSize,
    pub(super) component: Arc<ComponentRegisters>,
    pub(super) msix: Arc<dyn Msix>,
    pub(super) logs: EventLogs,
    pub(super) timestamp: Timestamp,
    pub(super) background: Background,
    pub(super) failures: Failures,
    pub(super) delays: Delays,
    pub(super) watermarks: WatermarkInterrupts,
    pub(super) alerts: Mutex<AlertConfig>,
    pub(super) firmware: Mutex<Firmware>,
    pub(super) poison_list: Mutex<ListCursor>,
    pub(super) scan: Mutex<ScanResults>,
    /// Sanitize began and did not finish: the remaining data must not be read.
    pub(super) media_disabled: AtomicBool,
}

impl DeviceState {
    pub(super) fn new(
        media: Arc<Media>,
        component: Arc<ComponentRegisters>,
        msix: Arc<dyn Msix>,
        payload_size: PayloadSize,
    ) -> Self {
        Self {
            media,
            payload_size,
            component,
            background: Background::new(Arc::clone(&msix)),
            failures: Failures::default(),
            delays: Delays::default(),
            msix,
            logs: EventLogs::default(),
            timestamp: Timestamp::default(),
            watermarks: WatermarkInterrupts::default(),
            alerts: Mutex::default(),
            firmware: Mutex::default(),
            poison_list: Mutex::default(),
            scan: Mutex::default(),
            media_disabled: AtomicBool::new(false),
        }
    }

    /// Appends a record to a log and raises the log's interrupt, if the host has enabled it.
    pub(super) fn log(&self, log: Log, record: Record) {
        if let Some(vector) = self.logs.append(log, record, self.timestamp.now()) {
            // If the vector is not armed it is raised when it is armed: the record stays in the log.
            self.msix.raise(vector);
        }
    }

    /// Handles an event of the medium.
    pub(super) fn media_event(&self, event: MediaEvent) {
        match event {
            MediaEvent::Crossed(crossing) => self.crossed(crossing),
            MediaEvent::Overflow { dpa } => {
                self.log(Log::Failure, Record::lost(dpa, Transaction::InternalMediaManagement));
            }
            // Poison goes to the host with the data, and what the host makes of it is the host's: no record.
            MediaEvent::PoisonRead { .. } => {}
        }
    }

    /// Reports a real or injected watermark crossing: raises the vendor interrupt, and logs an event record that a kernel
    /// without the vendor's driver shows.
    pub(super) fn crossed(&self, crossing: Crossing) {
        self.watermarks.crossed(crossing, &*self.msix);
        let (log, blocked) = match crossing {
            Crossing::Low => (Log::Warning, true),
            Crossing::High => (Log::Information, false),
        };
        self.log(log, Record::health_change(health(blocked)));
    }

    /// The client has armed this vector. Re-raises it if its condition still holds.
    pub(super) fn vector_armed(&self, vector: u16) {
        self.watermarks.vector_armed(vector, self.media.occupancy_now().blocked, &*self.msix);
        if self.logs.wants(vector) {
            self.msix.raise(vector);
        }
        if vector == super::vectors::MAILBOX {
            self.background.vector_armed();
        }
    }

    /// Conventional reset. What the logs hold stays to be read, and media that Sanitize left half wiped stays disabled.
    pub(super) fn reset(&self) {
        self.background.reset();
        self.logs.set_interrupt_policy(Default::default());
        self.timestamp.reset();
        *self.alerts.lock() = AlertConfig::default();
        self.firmware.lock().reset();
        *self.poison_list.lock() = ListCursor::default();
        *self.scan.lock() = ScanResults::default();
    }

    /// Power-on, after the medium was cleared.
    pub(super) fn power_on(&self) {
        self.reset();
        self.firmware.lock().power_on();
        self.logs.forget();
        self.watermarks.forget();
        self.media_disabled.store(false, Ordering::Release);
    }

    /// Whether an operation that disables the media runs, or Sanitize did not finish.
    pub(super) fn media_is_disabled(&self) -> bool {
        self.background.disables_media() || self.media_disabled.load(Ordering::Acquire)
    }
}
