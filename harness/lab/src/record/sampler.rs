//! Samples one device while a scenario runs.
//!
//! It has a thread and a control connection of its own, and asks without a flush, so that watching changes nothing. A device that is killed, hangs or comes back leaves a gap, never an error.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use cxl_cram_device::control::api::{QueryStatus, Status};

use super::timeline::{MOST, Sample, halve};
use crate::rig::control::Control;

/// How often a device is asked, until there are too many samples.
const PERIOD: Duration = Duration::from_millis(100);

/// A sampler at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Dropped to end the thread.
    go_on: Option<Sender<()>>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl Sampler {
    /// Samples the device behind a control socket; times count from `begun`.
    pub(crate) fn start(control: &Path, begun: Instant) -> Self {
        let (go_on, stop) = mpsc::channel();
        let work = Work { control: control.to_owned(), begun, stop, connection: None, samples: Vec::new() };
        // Without a thread there are no samples: watching is never a reason to fail.
        let thread = thread::Builder::new().name("sampler".into()).spawn(|| work.until_stopped()).ok();
        Self { go_on: Some(go_on), thread }
    }

    /// Takes a last sample and ends.
    pub(crate) fn finish(mut self) -> Vec<Sample> {
        self.end()
    }

    fn end(&mut self) -> Vec<Sample> {
        drop(self.go_on.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

struct Work {
    control: PathBuf,
    begun: Instant,
    stop: Receiver<()>,
    connection: Option<Control>,
    samples: Vec<Sample>,
}

impl Work {
    fn until_stopped(mut self) -> Vec<Sample> {
        let mut period = PERIOD;
        loop {
            self.take();
            if self.samples.len() >= MOST {
                halve(&mut self.samples);
                period *= 2;
            }
            if self.stop.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                self.take();
                return self.samples;
            }
        }
    }

    /// Takes a sample, if the device gives one.
    fn take(&mut self) {
        match self.status() {
            Ok(status) => {
                let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.samples.push(Sample::new(at_ms, status));
            }
            Err(error) => {
                tracing::debug!("no sample: {error:#}");
                self.connection = None;
            }
        }
    }

    fn status(&mut self) -> Result<Status> {
        // Waits for a device that does not answer until the scenario has ended.
        let give_up = || self.stop.try_recv() == Err(TryRecvError::Disconnected);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert(Control::connect(&self.control, &give_up)?),
        };
        connection.execute(&QueryStatus { flush: false }, &give_up)
    }
}

#[cfg(test)]
mod tests;
