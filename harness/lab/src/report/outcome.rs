//! The outcome of one scenario.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::lab::scenario::Scenario;
use crate::record::cases::Case;
use crate::record::facts::{Facts, Figure};
use crate::record::timeline::Timeline;

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "lowercase")]
pub enum Verdict {
    /// All steps and facts were as expected.
    Passed,
    /// It failed, with the reason.
    Failed(String),
    /// It could not run here, with the reason.
    Skipped(String),
    /// Ctrl-C or a signal ended it, so there is no result.
    Interrupted,
}

impl Verdict {
    /// The reason, if there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Passed | Self::Interrupted => None,
            Self::Failed(reason) | Self::Skipped(reason) => Some(reason),
        }
    }
}

/// One scenario's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub name: String,
    /// What it shows, in one line.
    pub story: String,
    /// The guest's kernel, as `uname -r` prints it.
    pub kernel: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether it failed because this machine could not run it, which says nothing about the kernel under test.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_at_fault: bool,
    /// Time from the start of the device to the end of the machine, in seconds.
    pub seconds: f64,
    /// The facts, which are compared with the snapshot.
    pub facts: Facts,
    /// The difference between snapshot and facts, as `diff -u`.
    pub difference: Option<String>,
    /// The measured figures.
    pub figures: Vec<Figure>,
    /// The cases of a kernel's selftest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<Case>,
    /// Steps, samples and events over time.
    pub timeline: Timeline,
    /// The console's last lines; of a kernel's selftest, those that it printed.
    pub console: Vec<String>,
    /// The folder with console, logs and command lines.
    pub artifacts: PathBuf,
    /// The files in that folder.
    pub files: Vec<String>,
}

impl Outcome {
    /// The outcome of a scenario that has not run yet.
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self {
            name: scenario.name.to_owned(),
            story: scenario.story.to_owned(),
            kernel: String::new(),
            verdict: Verdict::Passed,
            host_at_fault: false,
            seconds: 0.0,
            facts: Facts::default(),
            difference: None,
            figures: Vec::new(),
            cases: Vec::new(),
            timeline: Timeline::default(),
            console: Vec::new(),
            artifacts: PathBuf::new(),
            files: Vec::new(),
        }
    }

    /// Whether it failed.
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }
}

/// How many scenarios ended with each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Could not run here.
    pub skipped: usize,
    /// Ended by Ctrl-C or a signal.
    pub interrupted: usize,
}

impl Counts {
    /// Counts these outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            *match outcome.verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed(_) => &mut counts.failed,
                Verdict::Skipped(_) => &mut counts.skipped,
                Verdict::Interrupted => &mut counts.interrupted,
            } += 1;
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if self.interrupted > 0 {
            write!(f, ", {} interrupted", self.interrupted)?;
        }
        Ok(())
    }
}
