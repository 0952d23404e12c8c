//! Reads figures periodically while a scenario runs, and records each as a point of a series.
//!
//! A source that vanishes with its module or its guest leaves a gap.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::recorder::{AllSeries, elapsed_ms};

/// How often they are read.
const PERIOD: Duration = Duration::from_millis(200);

/// A follower at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Dropped to end the thread.
    go_on: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Calls `read` for figures by the names of their series; times count from `begun`.
    pub(crate) fn start(
        begun: Instant,
        series: Arc<Mutex<AllSeries>>,
        mut read: impl FnMut() -> Result<Vec<(String, f64)>> + Send + 'static,
    ) -> Self {
        let (go_on, stop) = mpsc::channel::<()>();
        let mut take = move || match read() {
            Ok(figures) => {
                let now = elapsed_ms(begun);
                let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
                figures.into_iter().for_each(|(name, value)| series.entry(name).or_default().push(now, value));
            }
            Err(error) => tracing::debug!("no figures: {error:#}"),
        };
        let thread = thread::Builder::new().name("follower".into()).spawn(move || {
            take();
            while stop.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                take();
            }
            take();
        });
        Self { go_on: Some(go_on), thread: thread.ok() }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.go_on.take());
        if let Some(thread) = self.thread.take() {
            let _: thread::Result<()> = thread.join();
        }
    }
}
