//! The report on the terminal: a line each as they end, the figures, and where the logs are.

use std::{fmt::Write, time::Duration};

use console::style;

use super::{Outcome, Verdict};

impl Outcome {
    /// The line shown as it ends, with the figures and the reason of a failure under it. Colours only where the
    /// terminal wants them.
    pub fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Passed => style("PASS").green().bold(),
            Verdict::Failed(_) => style("FAIL").red().bold(),
            Verdict::Skipped(_) => style("SKIP").yellow().bold(),
        };
        let mut text = format!("{mark} {:>6.1}s  {:<12} {}", self.seconds, self.name, self.story);
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for figure in &self.figures {
            let _ = write!(text, "\n                {:<width$}  {}", figure.name, figure.value);
        }
        for line in self.verdict.reason().unwrap_or_default().lines() {
            let _ = write!(text, "\n                {line}");
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
