//! KTAP, as the kernel's Documentation/dev-tools/ktap.rst describes it, for kselftest's parsers, KernelCI and LAVA. The cases of
//! a kernel's selftest are nested in its result.

use std::fmt::Write;

use super::{Outcome, Record, Verdict};
use crate::record::cases::{Case, CaseResult};

/// The record as one test with a line for each scenario.
pub(super) fn text(record: &Record) -> String {
    let kernels = record.kernels().len();
    let mut text = format!("KTAP version 1\n1..{}\n", record.scenarios.len());
    for (index, outcome) in record.scenarios.iter().enumerate() {
        diagnose(&mut text, outcome);
        nested(&mut text, &outcome.cases);
        let result = if outcome.failed() { "not ok" } else { "ok" };
        let _ = write!(text, "{result} {} {}", index + 1, one_line(&outcome.name));
        if kernels > 1 {
            let _ = write!(text, " on {}", one_line(&outcome.kernel));
        }
        match &outcome.verdict {
            Verdict::Skipped(reason) => _ = write!(text, " # SKIP {}", one_line(reason)),
            Verdict::Interrupted => text.push_str(" # SKIP interrupted"),
            Verdict::Passed | Verdict::Failed(_) => {}
        }
        text.push('\n');
    }
    text
}

/// Writes the cases of a test above its result.
fn nested(text: &mut String, cases: &[Case]) {
    if cases.is_empty() {
        return;
    }
    let _ = writeln!(text, "  KTAP version 1\n  1..{}", cases.len());
    for (number, case) in (1..).zip(cases) {
        let result = if case.result == CaseResult::Failed { "not ok" } else { "ok" };
        let _ = write!(text, "  {result} {number} {}", one_line(&case.name));
        if case.result == CaseResult::Skipped {
            let _ = write!(text, " # SKIP {}", one_line(&case.note));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

/// Writes the lines above a result: description, figures, and the reason for a failure.
fn diagnose(text: &mut String, outcome: &Outcome) {
    let _ = writeln!(text, "# {}: {}", one_line(&outcome.name), one_line(&outcome.story));
    for figure in &outcome.figures {
        let _ = writeln!(text, "# {}: {}", one_line(&figure.name), one_line(&figure.value));
    }
    if let Verdict::Failed(reason) = &outcome.verdict {
        let difference = outcome.difference.as_deref().unwrap_or_default();
        for line in reason.lines().chain(difference.lines()) {
            let _ = writeln!(text, "# {}", line.replace(char::is_control, " "));
        }
    }
}

/// A description can be anything but `#` and a newline.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || c == '#', " ")
}
