//! The record as one self-contained HTML page: a table of all, and a section for each scenario, failed ones first.

mod chart;
mod course;
pub(super) mod picture;
mod scenario;

use std::path::Path;

use chrono::DateTime;
use cxl_cram_kit::html::document;
use maud::{Markup, html};

use super::{Outcome, Record, Verdict};

/// What the base style sheet lacks.
const STYLE: &str = include_str!("report.css");

/// The page, for a file in `folder`. Equal records give equal pages.
pub(super) fn page(record: &Record, folder: &Path) -> String {
    let mut outcomes: Vec<_> = record.scenarios.iter().collect();
    outcomes.sort_by_key(|outcome| (order(outcome), outcome.name.as_str(), outcome.kernel.as_str()));
    let outcomes: Vec<_> =
        outcomes.into_iter().enumerate().map(|(index, outcome)| (format!("s{}", index + 1), outcome)).collect();
    let body = html! {
        (head(record))
        (table(&outcomes, record.kernels().len()))
        @for (id, outcome) in &outcomes { (scenario::section(outcome, id, folder)) }
    };
    document("cxl-cram scenarios", STYLE, &body)
}

fn order(outcome: &Outcome) -> u8 {
    match outcome.verdict {
        Verdict::Failed(_) => 0,
        Verdict::Interrupted => 1,
        Verdict::Passed => 2,
        Verdict::Skipped(_) => 3,
    }
}

/// The verdict as a word with a colour.
fn badge(outcome: &Outcome) -> Markup {
    let (class, word) = match outcome.verdict {
        Verdict::Failed(_) => ("failed", "failed"),
        Verdict::Passed => ("passed", "passed"),
        Verdict::Skipped(_) => ("skipped", "skipped"),
        Verdict::Interrupted => ("skipped", "interrupted"),
    };
    html! { span.badge.(class) { (word) } }
}

/// How many passed, when and on what.
fn head(record: &Record) -> Markup {
    let begun = i64::try_from(record.begun).ok().and_then(|begun| DateTime::from_timestamp(begun, 0));
    let begun = begun.map(|begun| begun.format("%Y-%m-%d %H:%M UTC, ").to_string()).unwrap_or_default();
    html! {
        h1 { (record.counts().to_string()) }
        p.soft { "cxl-cram scenarios, " (begun) (format!("{:.1}\u{a0}s", record.seconds)) }
        @for line in &record.about { p.soft { (line) } }
        @for note in &record.notes { p.warn { (note) } }
    }
}

/// All scenarios at a glance.
fn table(outcomes: &[(String, &Outcome)], kernels: usize) -> Markup {
    let row = |id: &str, outcome: &Outcome| {
        html! {
            tr {
                td { (badge(outcome)) }
                th scope="row" {
                    a href={ "#" (id) } { (outcome.name) }
                    @if kernels > 1 { " on " (outcome.kernel) }
                    span.story { (outcome.story) }
                    @if let Verdict::Skipped(reason) = &outcome.verdict { span.story { (reason) } }
                }
                td { (format!("{:.1} s", outcome.seconds)) }
            }
        }
    };
    html! {
        section {
            @if outcomes.is_empty() {
                p { "No scenario was played." }
            } @else {
                table.all { tbody { @for (id, outcome) in outcomes { (row(id, outcome)) } } }
            }
        }
    }
}
