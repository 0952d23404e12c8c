//! How far the run is: a bar on a terminal, a line now and then elsewhere; on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::size::format_bytes;

/// Between two lines where there is no terminal.
const PERIOD: Duration = Duration::from_secs(10);

/// The bar, or what is needed for the lines.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    start: Instant,
    said: Instant,
}

impl Progress {
    /// Nothing done of `total` bytes; None if that is not known.
    pub(super) fn new(total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => {
                    (ProgressBar::new(total), "{wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left")
                }
                None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
            };
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        Self { bar, total, done: 0, start: now, said: now }
    }

    /// More bytes are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.said.elapsed() >= PERIOD {
            self.said = Instant::now();
            let done = format_bytes(self.done);
            match self.total {
                None => eprintln!("measured {done}"),
                Some(total) => {
                    let left = total.saturating_sub(self.done) as f64 / self.done.max(1) as f64;
                    let seconds = self.start.elapsed().as_secs_f64() * left;
                    eprintln!("measured {done} of {}, about {seconds:.0} s left", format_bytes(total));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
