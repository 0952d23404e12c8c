//! What came of one scenario.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::scenario::{Facts, Figure, Timeline};

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "lowercase")]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not: what, in a sentence or more.
    Failed(String),
    /// It could not be played here, and why.
    Skipped(String),
}

impl Verdict {
    /// Why, if there is something to say.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(reason) | Self::Skipped(reason) => Some(reason),
        }
    }
}

/// One scenario's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which scenario.
    pub name: String,
    /// What it shows, in one line.
    pub story: String,
    /// The guest's kernel, as `uname -r` prints it.
    pub kernel: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// From the start of the device to the end of the machine, seconds.
    pub seconds: f64,
    /// What was stated for the snapshot.
    pub facts: Facts,
    /// Snapshot against facts, as `diff -u`, where they differ.
    pub difference: Option<String>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What happened when.
    pub timeline: Timeline,
    /// The console's last lines.
    pub console: Vec<String>,
    /// The folder with console, logs, command lines.
    pub artifacts: PathBuf,
    /// What is in it.
    pub files: Vec<String>,
}

impl Outcome {
    /// Whether it failed.
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }
}
