//! Events: said by any thread, also by one that serves the guest's memory, and heard by every client.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use serde_json::{Value, json};

use crate::{hdm::media::MediaEvent, store::BLOCK_SIZE};

/// Events kept until the server has time for them.
const MAX_PENDING: usize = 1024;

/// Where events are said. Clones are one and the same. Saying one never waits for a client.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pending: Mutex<VecDeque<Event>>,
    /// Readable while there are pending events.
    wake: OwnedFd,
}

#[derive(Debug)]
struct Event {
    what: What,
    at: SystemTime,
}

#[derive(Debug)]
enum What {
    LowWatermark,
    HighWatermark,
    /// Blocks lost one after the other become one event, so that a guest that overruns the media does not flood the
    /// clients.
    Overflow {
        first_dpa: u64,
        blocks: u64,
    },
    /// Loads of poison page after page become one event, for the same reason.
    PoisonRead {
        dpa: u64,
        length: u64,
    },
}

impl What {
    /// Takes in what came next, if both are one event.
    fn join(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Overflow { blocks, .. }, Self::Overflow { .. }) => *blocks = blocks.saturating_add(1),
            (Self::PoisonRead { dpa, length }, Self::PoisonRead { dpa: at, length: more }) => {
                let page = |dpa: u64| dpa / BLOCK_SIZE as u64;
                let last = page(dpa.saturating_add(length.saturating_sub(1)));
                if *at < *dpa || page(*at) > last.saturating_add(1) {
                    return false;
                }
                *length = (*length).max(at.saturating_add(*more) - *dpa);
            }
            _ => return false,
        }
        true
    }
}

impl Events {
    /// No events yet. Fails when no eventfd can be had.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { pending: Mutex::default(), wake })))
    }

    /// Says what the medium has told. Events beyond those that can be kept are dropped.
    pub fn media(&self, event: MediaEvent) {
        let what = match event {
            MediaEvent::LowCrossing => What::LowWatermark,
            MediaEvent::HighCrossing => What::HighWatermark,
            MediaEvent::Overflow { dpa } => What::Overflow { first_dpa: dpa, blocks: 1 },
            MediaEvent::PoisonRead { dpa, length } => What::PoisonRead { dpa, length },
        };
        let mut pending = self.0.pending.lock();
        let joined = pending.back_mut().is_some_and(|last| last.what.join(&what));
        if !joined && pending.len() < MAX_PENDING {
            pending.push_back(Event { what, at: SystemTime::now() });
        }
        drop(pending);
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Takes what is pending, as messages.
    pub(super) fn take(&self) -> Vec<Value> {
        // First the counter, then the events: an event that comes in between wakes the server once more, for nothing.
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let pending = std::mem::take(&mut *self.0.pending.lock());
        pending.iter().map(Event::message).collect()
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

impl Event {
    fn message(&self) -> Value {
        let (name, data) = match &self.what {
            What::LowWatermark => ("CXL_CRAM_LOW_WATERMARK", json!({})),
            What::HighWatermark => ("CXL_CRAM_HIGH_WATERMARK", json!({})),
            What::Overflow { first_dpa, blocks } => ("CXL_CRAM_OVERFLOW", json!({"dpa": first_dpa, "blocks": blocks})),
            What::PoisonRead { dpa, length } => ("CXL_CRAM_POISON_READ", json!({"dpa": dpa, "length": length})),
        };
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "event": name,
            "data": data,
            "timestamp": {"seconds": since.as_secs(), "microseconds": since.subsec_micros()},
        })
    }
}
