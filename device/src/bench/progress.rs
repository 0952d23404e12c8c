//! How far the run is, in bytes.

use cxl_cram_kit::{
    progress::{self, Step},
    size::format_bytes,
};

/// The task, and what of it is done.
pub(super) struct Progress {
    step: Step,
    of: String,
    done: u64,
}

impl Progress {
    /// Nothing done of `total` bytes; None if that is not known.
    pub(super) fn new(total: Option<u64>) -> Self {
        let of = total.map_or(String::new(), |total| format!(" of {}", format_bytes(total)));
        Self { step: progress::Progress::stderr().task("measured", total.unwrap_or(0)), of, done: 0 }
    }

    /// More bytes are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        self.step.at(self.done, &format!("{}{}", format_bytes(self.done), self.of));
    }
}
