//! Ends a scenario that exceeds its limit, and diagnoses where the machine hangs.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::machine::hang::HangProbe;

/// The hang probe of the current machine: a scenario may kill its machine and boot another.
pub(crate) type Watched = Arc<Mutex<HangProbe>>;

/// A watch on a machine. At the limit it diagnoses and kills the machine, which ends every wait for it.
pub(crate) struct Watchdog {
    /// Dropped when the scenario has ended.
    done: Sender<()>,
    thread: JoinHandle<Option<String>>,
}

impl Watchdog {
    /// # Errors
    /// The process has too many threads.
    pub(crate) fn set(watched: Watched, limit: Duration) -> io::Result<Self> {
        let (done, is_done) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("watchdog".into()).spawn(move || {
            let late = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            let hang_probe = || watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
            late.then(|| hang_probe().diagnose_and_kill())
        })?;
        Ok(Self { done, thread })
    }

    /// Ends the watch. Returns where the machine hung if the limit was exceeded.
    pub(crate) fn called_off(self) -> Option<String> {
        drop(self.done);
        self.thread.join().unwrap_or_default()
    }
}
