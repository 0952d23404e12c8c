//! Events: sent by any thread, including those that serve the guest's memory, and received by every client.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::api::{Event, Notification, Timestamp};
use crate::{
    hdm::media::{Crossing, MediaEvent},
    store::BLOCK_SIZE,
};

/// Events kept until the server has time for them.
const MAX_PENDING: usize = 1024;

/// A queue of events. Clones share one queue. Sending an event never waits for a client.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pending: Mutex<VecDeque<Pending>>,
    /// Readable while there are pending events.
    wake: OwnedFd,
}

#[derive(Debug)]
struct Pending {
    event: Event,
    at: SystemTime,
}

/// Extends an event by the next one, if they are reported as one: consecutive lost blocks, or loads of poison in neighbouring
/// pages. So a guest that overruns the media does not flood the clients.
fn join(event: &mut Event, next: &Event) -> bool {
    match (event, next) {
        (Event::Overflow { blocks, .. }, Event::Overflow { .. }) => *blocks = blocks.saturating_add(1),
        (Event::PoisonRead { dpa, length }, Event::PoisonRead { dpa: at, length: more }) => {
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

impl Events {
    /// No events yet. Fails when no eventfd can be had.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { pending: Mutex::default(), wake })))
    }

    /// Queues an event of the medium. When the queue is full, events are dropped.
    pub fn media(&self, event: MediaEvent) {
        let event = match event {
            MediaEvent::Crossed(Crossing::Low) => Event::LowWatermark {},
            MediaEvent::Crossed(Crossing::High) => Event::HighWatermark {},
            MediaEvent::Overflow { dpa } => Event::Overflow { dpa, blocks: 1 },
            MediaEvent::PoisonRead { dpa, length } => Event::PoisonRead { dpa, length },
        };
        let mut pending = self.0.pending.lock();
        let joined = pending.back_mut().is_some_and(|last| join(&mut last.event, &event));
        if !joined && pending.len() < MAX_PENDING {
            pending.push_back(Pending { event, at: SystemTime::now() });
        }
        drop(pending);
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Takes the pending events.
    pub(super) fn take(&self) -> Vec<Notification> {
        // First the counter, then the events: an event that comes in between wakes the server once more, for nothing.
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
        let pending = std::mem::take(&mut *self.0.pending.lock());
        pending.into_iter().map(Notification::from).collect()
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

impl From<Pending> for Notification {
    fn from(Pending { event, at }: Pending) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { event, timestamp: Timestamp { seconds: since.as_secs(), microseconds: since.subsec_micros() } }
    }
}
