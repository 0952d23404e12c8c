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
    event_record::{Record, Transaction},
    events::{EventLogs, Log},
    failure::Failures,
    mailbox::{
        alert::AlertConfig,
        firmware::Firmware,
        health::health,
        poison::{ListCursor, ScanResults},
        sanitize::SANITIZE,
        timestamp::Timestamp,
    },
    watermark::{Crossing, WatermarkInterrupts},
};
use crate::hdm::media::{Media, MediaEvent};

/// Gives the dump of the component registers.
pub(super) type ComponentStateSource = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// The device behind the mailbox.
pub(super) struct DeviceState {
    pub(super) media: Arc<Media>,
    pub(super) msix: Arc<dyn Msix>,
    pub(super) logs: EventLogs,
    pub(super) timestamp: Timestamp,
    pub(super) background: Background,
    pub(super) failures: Failures,
    pub(super) watermarks: WatermarkInterrupts,
    pub(super) alerts: Mutex<AlertConfig>,
    pub(super) firmware: Mutex<Firmware>,
    pub(super) poison_list: Mutex<ListCursor>,
    pub(super) scan: Mutex<ScanResults>,
    pub(super) component_state: Mutex<Option<ComponentStateSource>>,
    /// Sanitize began and did not finish: what is left must not be read.
    pub(super) media_disabled: AtomicBool,
}

impl DeviceState {
    pub(super) fn new(media: Arc<Media>, msix: Arc<dyn Msix>) -> Self {
        Self {
            media,
            background: Background::new(Arc::clone(&msix)),
            failures: Failures::default(),
            msix,
            logs: EventLogs::default(),
            timestamp: Timestamp::default(),
            watermarks: WatermarkInterrupts::default(),
            alerts: Mutex::default(),
            firmware: Mutex::default(),
            poison_list: Mutex::default(),
            scan: Mutex::default(),
            component_state: Mutex::default(),
            media_disabled: AtomicBool::new(false),
        }
    }

    /// Puts a record into a log, and announces it as the host asked.
    pub(super) fn log(&self, log: Log, record: Record) {
        if let Some(vector) = self.logs.append(log, record, self.timestamp.now()) {
            // A vector that nobody listens to is announced when somebody does: the record stays in the log.
            self.msix.raise(vector);
        }
    }

    /// The medium has something to say.
    pub(super) fn media_event(&self, event: MediaEvent) {
        match event {
            MediaEvent::LowCrossing => self.crossed(Crossing::Low),
            MediaEvent::HighCrossing => self.crossed(Crossing::High),
            MediaEvent::Overflow { dpa } => {
                self.log(Log::Failure, Record::lost(dpa, Transaction::InternalMediaManagement));
            }
            // Poison goes to the host with the data, and what the host makes of it is the host's: no record.
            MediaEvent::PoisonRead { .. } => {}
        }
    }

    /// A watermark was crossed, or somebody wants it told as if: the interrupt of the vendor's driver, and a record that
    /// a kernel without that driver shows.
    pub(super) fn crossed(&self, crossing: Crossing) {
        self.watermarks.crossed(crossing, &*self.msix);
        let (log, blocked) = match crossing {
            Crossing::Low => (Log::Warning, true),
            Crossing::High => (Log::Information, false),
        };
        self.log(log, Record::health_change(health(blocked)));
    }

    /// Somebody listens to this vector now: what is still true is said again.
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

    /// Whether Sanitize runs, or did not finish.
    pub(super) fn media_is_disabled(&self) -> bool {
        self.background.running_opcode() == Some(SANITIZE) || self.media_disabled.load(Ordering::Acquire)
    }
}
