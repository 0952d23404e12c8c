//! Stopping a server: a flag that `poll` can wait for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A handle that ends every server and every wait it was given to. Clones are one and the same handle.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    triggered: AtomicBool,
    /// Stays readable once triggered, because it is never read.
    event: OwnedFd,
}

/// Triggers its [`Stop`] when dropped.
#[derive(Debug)]
#[must_use = "dropped at once, it triggers at once"]
pub struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

/// Why a wait ended early.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// [`Stop::trigger`] was called.
    Stopped,
    /// `poll` failed.
    Failed(rustix::io::Errno),
}

impl Stop {
    /// A handle that has not been triggered. Fails when no eventfd can be had.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { triggered: AtomicBool::new(false), event })))
    }

    /// Stops every server that holds this handle, permanently. An atomic store and a write(2): safe in a signal handler.
    pub fn trigger(&self) {
        self.0.triggered.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Triggers when the guard is dropped, however the scope is left: a thread that waits for this handle then never
    /// keeps a scope that panicked from ending.
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    /// Whether [`Self::trigger`] was called.
    pub fn is_triggered(&self) -> bool {
        self.0.triggered.load(Ordering::SeqCst)
    }

    /// Waits until `fd` has one of `events` (or hung up), or this handle is triggered, or the time is over.
    pub(crate) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        timeout: Option<&Timespec>,
    ) -> Result<(), Interrupted> {
        loop {
            let mut fds =
                [PollFd::from_borrowed_fd(self.0.event.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(fd, events)];
            match poll(&mut fds, timeout) {
                Ok(_) if self.is_triggered() => return Err(Interrupted::Stopped),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Interrupted::Failed(error)),
            }
        }
    }
}

impl AsFd for Stop {
    /// An eventfd that is readable once triggered. Wait for it; do not read it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
