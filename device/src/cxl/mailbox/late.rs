//! A command that waits for its execution, on a thread of its own: the thread that rang the doorbell has an answer to give.

use std::{
    convert::Infallible,
    io,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

/// The command. Dropped, it is not executed, unless it already runs: then it ends first.
pub(super) struct LateCommand {
    /// Nothing is ever sent: that there is no sender any more is the message.
    cancel: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl LateCommand {
    /// Executes this after the delay.
    pub(super) fn start(delay: Duration, command: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::Builder::new().name("doorbell".into()).spawn(move || {
            if cancelled.recv_timeout(delay) == Err(RecvTimeoutError::Timeout) {
                command();
            }
        })?;
        Ok(Self { cancel: Some(cancel), thread: Some(thread) })
    }
}

impl Drop for LateCommand {
    fn drop(&mut self) {
        self.cancel = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a late mailbox command panicked");
        }
    }
}
