//! Watches one device while a story is told.
//!
//! A thread and a control connection of its own. It asks without making the device flush, so that watching changes
//! nothing. A device that is killed, hangs or comes back leaves a gap, never an error.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use super::{
    Status,
    control::Control,
    timeline::{MOST, Sample, halve},
};

/// How often a device is asked, until there are too many samples.
const PERIOD: Duration = Duration::from_millis(100);

/// A sampler at work. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Dropped to end the thread.
    go_on: Option<Sender<()>>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl Sampler {
    /// Samples the device behind a control socket; times count from `begun`.
    pub(super) fn start(control: &Path, begun: Instant) -> Self {
        let (go_on, stop) = mpsc::channel();
        let work = Work { control: control.to_owned(), begun, stop, connection: None, samples: Vec::new() };
        Self { go_on: Some(go_on), thread: Some(thread::spawn(|| work.until_stopped())) }
    }

    /// Takes a last sample and ends.
    pub(super) fn finish(mut self) -> Vec<Sample> {
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
        // A device that does not answer is waited for until the story has ended.
        let give_up = || self.stop.try_recv() == Err(TryRecvError::Disconnected);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert(Control::connect(&self.control, &give_up)?),
        };
        Ok(serde_json::from_value(connection.execute("query-status", json!({"flush": false}), &give_up)?)?)
    }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
