//! What a device says on its control socket without being asked.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::control::Control;

/// An event: its name, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceEvent {
    /// For example `CXL_CRAM_OVERFLOW`.
    pub name: String,
    /// Its members.
    pub data: Value,
}

impl DeviceEvent {
    /// A member that is a number.
    pub fn number(&self, member: &str) -> Result<u64> {
        self.data[member].as_u64().with_context(|| format!("the event {} has no number {member}", self.name))
    }
}

/// A thread that hears a device's events, so that the device never waits for a story that is busy.
pub struct Listener<T> {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Default + Send + 'static> Listener<T> {
    /// Has `hear` hear every event from now on. After an error it hears no more.
    pub(super) fn start(
        control: &Path,
        mut hear: impl FnMut(&mut T, DeviceEvent) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let give_up = move || stop.load(Ordering::Acquire);
        let mut control = Control::connect(control, &give_up)?;
        let thread = thread::spawn(move || {
            let mut heard = T::default();
            while let Some(event) = control.event(&give_up)? {
                hear(&mut heard, event)?;
            }
            Ok(heard)
        });
        Ok(Self { stopping, thread })
    }

    /// Ends it, and gives what was heard. What the device told before it answered its last command is in.
    pub fn finish(self) -> Result<T> {
        self.stopping.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the thread that hears the device's events panicked"))?
    }
}
