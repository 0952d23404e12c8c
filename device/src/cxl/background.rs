//! Background operations (CXL 3.1, 8.2.8.4): one at a time, on a worker thread of their own.
//!
//! The Background Command Status register shows the operation's progress. The completion interrupt is raised once, when the
//! operation ends. If the vector was not armed at that time, it is raised again when the vector is armed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{Msix, mailbox::return_code::ReturnCode, vectors};

/// What an operation does, and the return code it ends with. It asks [`Progress::aborted`] between steps.
type Work = Box<dyn FnOnce(&Progress<'_>) -> u16 + Send>;

/// An operation that has been accepted but not started.
pub(super) struct Job {
    work: Work,
    abortable: bool,
    disables_media: bool,
}

impl Job {
    /// An operation that Request Abort Background Operation may stop.
    pub(super) fn abortable(work: impl FnOnce(&Progress<'_>) -> ReturnCode + Send + 'static) -> Self {
        Self { work: Box::new(|progress| work(progress) as u16), abortable: true, disables_media: false }
    }

    /// An operation that only a reset stops.
    pub(super) fn unstoppable(work: impl FnOnce(&Progress<'_>) -> ReturnCode + Send + 'static) -> Self {
        Self { work: Box::new(|progress| work(progress) as u16), abortable: false, disables_media: false }
    }

    /// The same operation, but the media is disabled while it runs.
    pub(super) fn with_media_disabled(self) -> Self {
        Self { disables_media: true, ..self }
    }

    /// The same operation, but it does nothing and ends with this return code, unless it is stopped before.
    pub(super) fn failing(self, code: u16) -> Self {
        let work = move |progress: &Progress<'_>| if progress.aborted() { ReturnCode::Aborted as u16 } else { code };
        Self { work: Box::new(work), ..self }
    }

    /// The same operation, but it begins its work only this long from now, or when it is stopped: then it does what it does
    /// when it is stopped before its first step.
    pub(super) fn delayed(self, by: Duration) -> Self {
        let (work, begin) = (self.work, Instant::now() + by);
        let work = move |progress: &Progress<'_>| {
            progress.wait_until(begin);
            work(progress)
        };
        Self { work: Box::new(work), ..self }
    }
}

/// Through this an operation reports its progress and learns that it must stop.
pub(super) struct Progress<'a>(&'a Shared);

impl Progress<'_> {
    /// Reports that `done` of `total` is done. The register shows 100 % only once the operation has ended.
    pub(super) fn report(&self, done: u64, total: u64) {
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        self.0.state.lock().percent = percent.min(99) as u8;
    }

    /// Stop now and return [`ReturnCode::Aborted`].
    pub(super) fn aborted(&self) -> bool {
        self.0.abort.load(Ordering::Acquire)
    }

    /// Waits until this time, or until the operation must stop.
    fn wait_until(&self, time: Instant) {
        let mut state = self.0.state.lock();
        while !self.aborted() && !self.0.changed.wait_until(&mut state, time).timed_out() {}
    }
}

#[derive(Default)]
struct State {
    opcode: u16,
    percent: u8,
    code: u16,
    running: bool,
    abortable: bool,
    disables_media: bool,
    next: Option<Work>,
    shutdown: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Set with `state` locked: an operation that waits on `changed` has looked at it under the lock.
    abort: AtomicBool,
    msix: Arc<dyn Msix>,
    interrupt_enabled: AtomicBool,
    undelivered: AtomicBool,
}

/// The worker and its status.
pub(super) struct Background {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    pub(super) fn new(msix: Arc<dyn Msix>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                abort: AtomicBool::new(false),
                msix,
                interrupt_enabled: AtomicBool::new(false),
                undelivered: AtomicBool::new(false),
            }),
            worker: Mutex::new(None),
        }
    }

    /// Whether an operation is under way.
    pub(super) fn running(&self) -> bool {
        self.shared.state.lock().running
    }

    /// The opcode of the operation under way.
    pub(super) fn running_opcode(&self) -> Option<u16> {
        let state = self.shared.state.lock();
        state.running.then_some(state.opcode)
    }

    /// Whether an operation is under way that disables the media.
    pub(super) fn disables_media(&self) -> bool {
        let state = self.shared.state.lock();
        state.running && state.disables_media
    }

    /// The Background Command Status register: opcode 15:0, percentage 22:16, return code 47:32.
    pub(super) fn status_register(&self) -> u64 {
        let state = self.shared.state.lock();
        u64::from(state.opcode) | u64::from(state.percent) << 16 | u64::from(state.code) << 32
    }

    /// Starts an operation.
    pub(super) fn start(&self, opcode: u16, job: Job) -> Result<(), ReturnCode> {
        self.ensure_worker()?;
        let mut state = self.shared.state.lock();
        if state.running || state.shutdown {
            return Err(ReturnCode::Busy);
        }
        self.shared.abort.store(false, Ordering::Release);
        self.shared.undelivered.store(false, Ordering::Release);
        let Job { work, abortable, disables_media } = job;
        *state = State { opcode, running: true, abortable, disables_media, next: Some(work), ..State::default() };
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Asks the operation under way to stop; it does so at its next step. Nothing under way is no error.
    pub(super) fn request_abort(&self) -> Result<(), ReturnCode> {
        let state = self.shared.state.lock();
        if state.running && !state.abortable {
            return Err(ReturnCode::RequestAbortNotSupported);
        }
        if state.running {
            self.shared.stop_operation();
        }
        Ok(())
    }

    /// Mailbox control, bit 2.
    pub(super) fn enable_interrupt(&self, enabled: bool) {
        self.shared.interrupt_enabled.store(enabled, Ordering::Release);
    }

    pub(super) fn interrupt_enabled(&self) -> bool {
        self.shared.interrupt_enabled.load(Ordering::Acquire)
    }

    /// The client has armed the mailbox vector.
    pub(super) fn vector_armed(&self) {
        if self.shared.undelivered.swap(false, Ordering::AcqRel) {
            self.shared.complete();
        }
    }

    /// Stops the operation under way, whatever it is, waits for it, and forgets its status.
    pub(super) fn reset(&self) {
        let mut state = self.shared.state.lock();
        if state.running {
            self.shared.stop_operation();
        }
        while state.running {
            self.shared.changed.wait(&mut state);
        }
        *state = State { shutdown: state.shutdown, ..State::default() };
        drop(state);
        self.enable_interrupt(false);
        self.shared.undelivered.store(false, Ordering::Release);
    }

    /// Stops the operation under way and the worker, and waits for both.
    pub(super) fn shutdown(&self) {
        let mut state = self.shared.state.lock();
        state.shutdown = true;
        self.shared.stop_operation();
        drop(state);
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && worker.join().is_err()
        {
            tracing::error!("the background worker panicked");
        }
    }

    /// The worker starts with the first operation: most functions never need it.
    fn ensure_worker(&self) -> Result<(), ReturnCode> {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("background".into()).spawn(move || shared.work());
            *worker = Some(thread.map_err(|error| {
                tracing::error!(%error, "cannot start the background worker");
                ReturnCode::InternalError
            })?);
        }
        Ok(())
    }
}

impl Shared {
    /// Tells the operation under way to stop, and wakes it. The caller holds the state.
    fn stop_operation(&self) {
        self.abort.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.next.take() {
                drop(state);
                let code = work(&Progress(self));
                state = self.state.lock();
                // Also when it was aborted: drivers wait for 100 % and then look at the return code.
                state.percent = 100;
                state.code = code;
                state.running = false;
                self.changed.notify_all();
                drop(state);
                self.complete();
                state = self.state.lock();
            } else if state.shutdown {
                return;
            } else {
                self.changed.wait(&mut state);
            }
        }
    }

    /// The completion interrupt.
    fn complete(&self) {
        if self.interrupt_enabled.load(Ordering::Acquire) {
            // Undelivered first: a vector armed between the two lines is raised once too often instead of never.
            self.undelivered.store(true, Ordering::Release);
            if self.msix.raise(vectors::MAILBOX) {
                self.undelivered.store(false, Ordering::Release);
            }
        }
    }
}
