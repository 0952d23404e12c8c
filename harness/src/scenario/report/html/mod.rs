//! The record as one self-contained HTML page: a table of all, and a section for each scenario, failed ones first.

mod chart;
mod course;
pub(super) mod picture;
mod scenario;

use std::path::Path;

use chrono::DateTime;
use cxl_cram_device::html::{document, markup::escape};

use super::{Outcome, Record, Verdict};

/// What the base style sheet lacks.
const STYLE: &str = include_str!("report.css");

/// The page, for a file in `folder`. Equal records give equal pages.
pub(super) fn page(record: &Record, folder: &Path) -> String {
    let mut outcomes: Vec<_> = record.scenarios.iter().collect();
    outcomes.sort_by_key(|outcome| (order(outcome), outcome.name.as_str(), outcome.kernel.as_str()));
    let outcomes: Vec<_> =
        outcomes.into_iter().enumerate().map(|(index, outcome)| (format!("s{}", index + 1), outcome)).collect();
    let sections: String = outcomes.iter().map(|(id, outcome)| scenario::section(outcome, id, folder)).collect();
    document("cxl-cram scenarios", STYLE, &[head(record), table(&outcomes, record.kernels().len()), sections].concat())
}

fn order(outcome: &Outcome) -> u8 {
    match outcome.verdict {
        Verdict::Failed(_) => 0,
        Verdict::Passed => 1,
        Verdict::Skipped(_) => 2,
    }
}

/// The verdict as a word with a colour.
fn badge(outcome: &Outcome) -> &'static str {
    match outcome.verdict {
        Verdict::Failed(_) => "<span class=\"badge failed\">failed</span>",
        Verdict::Passed => "<span class=\"badge passed\">passed</span>",
        Verdict::Skipped(_) => "<span class=\"badge skipped\">skipped</span>",
    }
}

/// How many passed, when and on what.
fn head(record: &Record) -> String {
    let (passed, failed, skipped) = record.counts();
    let begun = i64::try_from(record.begun).ok().and_then(|begun| DateTime::from_timestamp(begun, 0));
    let begun = begun.map(|begun| begun.format("%Y-%m-%d %H:%M UTC, ").to_string()).unwrap_or_default();
    let about: String = record.about.iter().map(|line| format!("<p class=\"soft\">{}</p>\n", escape(line))).collect();
    let notes: String = record.notes.iter().map(|note| format!("<p class=\"warn\">{}</p>\n", escape(note))).collect();
    format!(
        "<h1>{passed} passed, {failed} failed, {skipped} skipped</h1>\n\
         <p class=\"soft\">cxl-cram scenarios, {begun}{:.1}&nbsp;s</p>\n{about}{notes}",
        record.seconds
    )
}

/// All scenarios at a glance.
fn table(outcomes: &[(String, &Outcome)], kernels: usize) -> String {
    if outcomes.is_empty() {
        return "<section><p>No scenario was played.</p></section>\n".to_owned();
    }
    let row = |(id, outcome): &(String, &Outcome)| {
        let kernel = if kernels > 1 { format!(" on {}", escape(&outcome.kernel)) } else { String::new() };
        let why = match &outcome.verdict {
            Verdict::Skipped(reason) => format!("<span class=\"story\">{}</span>", escape(reason)),
            Verdict::Passed | Verdict::Failed(_) => String::new(),
        };
        format!(
            "<tr><td>{}</td><th scope=\"row\"><a href=\"#{id}\">{}</a>{kernel}<span class=\"story\">{}</span>{why}</th>\
             <td>{:.1} s</td></tr>\n",
            badge(outcome),
            escape(&outcome.name),
            escape(&outcome.story),
            outcome.seconds
        )
    };
    let rows: String = outcomes.iter().map(row).collect();
    format!("<section>\n<table class=\"all\">\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n")
}
