//! What came of the scenarios: a line each as they end, the figures, and where the logs are.

use std::{fmt::Write, path::PathBuf, time::Duration};

use console::style;
use serde_json::json;

use super::{Facts, Figure, Scenario, Timeline};

/// How a scenario ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not: what, in a sentence or more.
    Failed(String),
    /// It could not be played here, and why.
    Skipped(String),
}

/// One scenario's outcome.
#[derive(Debug)]
pub struct Outcome {
    /// Which scenario.
    pub scenario: &'static Scenario,
    /// The guest's kernel, as `uname -r` prints it.
    pub kernel: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was stated for the snapshot.
    pub facts: Facts,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What happened when.
    pub timeline: Timeline,
    /// From the start of the device to the end of the machine.
    pub elapsed: Duration,
    /// Console, logs, command lines.
    pub artifacts: PathBuf,
}

impl Outcome {
    /// Whether it failed.
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    /// The line shown as it ends, with the figures and the reason of a failure under it. Colours only where the
    /// terminal wants them.
    pub fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Passed => style("PASS").green().bold(),
            Verdict::Failed(_) => style("FAIL").red().bold(),
            Verdict::Skipped(_) => style("SKIP").yellow().bold(),
        };
        let mut text =
            format!("{mark} {:>6.1}s  {:<12} {}", self.elapsed.as_secs_f64(), self.scenario.name, self.scenario.story);
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for figure in &self.figures {
            let _ = write!(text, "\n                {:<width$}  {}", figure.name, figure.value);
        }
        if let Verdict::Failed(reason) | Verdict::Skipped(reason) = &self.verdict {
            for line in reason.lines() {
                let _ = write!(text, "\n                {line}");
            }
        }
        text
    }
}

/// The closing lines: how many passed, and where to look.
pub fn summary(outcomes: &[Outcome], elapsed: Duration) -> String {
    let count = |wanted: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let mut text = format!("{passed} passed, {failed} failed, {skipped} skipped in {:.1} s", elapsed.as_secs_f64());
    if let Some(folder) = outcomes.first().and_then(|outcome| outcome.artifacts.parent()) {
        let _ = write!(text, "\nconsole, device log and QEMU command line of each: {}", folder.display());
    }
    text
}

/// The outcomes for machines: verdict, reason, seconds, facts and figures of each.
pub fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    let scenarios: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let (verdict, reason) = match &outcome.verdict {
                Verdict::Passed => ("passed", None),
                Verdict::Failed(reason) => ("failed", Some(reason)),
                Verdict::Skipped(reason) => ("skipped", Some(reason)),
            };
            json!({
                "name": outcome.scenario.name,
                "story": outcome.scenario.story,
                "verdict": verdict,
                "reason": reason,
                "seconds": outcome.elapsed.as_secs_f64(),
                "facts": outcome.facts,
                "figures": outcome.figures,
                "artifacts": outcome.artifacts,
            })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "scenarios": scenarios }))
}
