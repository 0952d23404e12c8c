//! Watches the clock of a story: one that is late has hung, and is told where.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::machine::hang::Witness;

/// The witness of the machine that a story plays on now: a story may kill its machine and boot another.
pub(crate) type Watched = Arc<Mutex<Witness>>;

/// A watch on a machine. At the limit the machine says where it hangs and is killed, which ends every wait for it.
pub(crate) struct Watchdog {
    /// Dropped when the story has ended.
    done: Sender<()>,
    thread: JoinHandle<Option<String>>,
}

impl Watchdog {
    pub(crate) fn set(watched: Watched, limit: Duration) -> Self {
        let (done, is_done) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let late = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            let witness = || watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
            late.then(|| witness().testify_and_kill())
        });
        Self { done, thread }
    }

    /// The story has ended. If it was late: where the machine hung.
    pub(crate) fn called_off(self) -> Option<String> {
        drop(self.done);
        self.thread.join().unwrap_or_default()
    }
}
