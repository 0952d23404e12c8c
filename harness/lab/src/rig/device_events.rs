//! The events that a device reports on its control socket.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Result, anyhow};
use cxl_cram_device::control::api::Event;

use super::control::Control;

/// A thread that receives a device's events, so that the device never waits for a busy scenario.
pub struct Listener<T> {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Default + Send + 'static> Listener<T> {
    /// Calls `hear` for every event from now on, until its first error.
    pub(crate) fn start(
        control: &Path,
        mut hear: impl FnMut(&mut T, Event) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let give_up = move || stop.load(Ordering::Acquire);
        let mut control = Control::connect(control, &give_up)?;
        let thread = thread::Builder::new().name("device-events".into()).spawn(move || {
            let mut heard = T::default();
            while let Some(event) = control.event(&give_up)? {
                hear(&mut heard, event.event)?;
            }
            Ok(heard)
        })?;
        Ok(Self { stopping, thread })
    }

    /// Ends it and returns the result. Every event that the device sent before its last answer is included.
    pub fn finish(self) -> Result<T> {
        self.stopping.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the thread that hears the device's events panicked"))?
    }
}
