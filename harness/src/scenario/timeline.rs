//! What happened when: the steps of the story, and what the devices held meanwhile.

use std::time::{Duration, Instant};

use serde::Serialize;

/// A step, from when it began.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// Since the device started.
    pub at: Duration,
    /// The step.
    pub step: String,
}

/// The steps of a story and the time they began.
#[derive(Clone, Debug)]
pub struct Timeline {
    begun: Instant,
    /// The steps, in order.
    pub marks: Vec<Mark>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { begun: Instant::now(), marks: Vec::new() }
    }
}

impl Timeline {
    /// A step begins now.
    pub fn mark(&mut self, step: &str) {
        self.marks.push(Mark { at: self.begun.elapsed(), step: step.to_owned() });
    }

    /// The step now.
    pub fn step(&self) -> &str {
        self.marks.last().map_or("", |mark| &mark.step)
    }
}
