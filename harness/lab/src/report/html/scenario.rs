//! The section of one scenario.

use std::path::Path;

use maud::{Markup, html};
use pathdiff::diff_paths;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{badge, course};
use crate::record::cases::{Case, CaseCounts, CaseResult};
use crate::report::{Outcome, Verdict};

/// All of a path but what every browser takes as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The section. Links are relative to `folder`, where the page is.
pub(super) fn section(outcome: &Outcome, id: &str, folder: &Path) -> Markup {
    html! {
        section #(id) {
            h2 { (badge(outcome)) " " (outcome.name) }
            p { (outcome.story) }
            p.soft { "Linux " (outcome.kernel) (format!(", {:.1} s", outcome.seconds)) }
            (reason(&outcome.verdict))
            @if let Some(text) = &outcome.difference { (difference(text)) }
            (figures(outcome))
            (cases(&outcome.cases))
            (course::section(&outcome.timeline, id))
            @if !outcome.facts.is_empty() {
                (folded("Facts", &serde_json::to_string_pretty(&outcome.facts).unwrap_or_default()))
            }
            @if !outcome.console.is_empty() { (folded(end_of(outcome), &outcome.console.join("\n"))) }
            (links(outcome, folder))
        }
    }
}

/// What the last lines are of.
fn end_of(outcome: &Outcome) -> &'static str {
    if outcome.cases.is_empty() { "End of the console" } else { "End of the output" }
}

/// The cases of a selftest, failed ones first.
fn cases(cases: &[Case]) -> Markup {
    if cases.is_empty() {
        return Markup::default();
    }
    let of = |result: CaseResult, word: &'static str| {
        let these = cases.iter().filter(move |case| case.result == result);
        these.map(move |case| format!("{word} {} {}", case.name, case.note).trim_end().to_owned())
    };
    let lines = of(CaseResult::Failed, "failed  ");
    let lines: Vec<_> =
        lines.chain(of(CaseResult::Skipped, "skipped ")).chain(of(CaseResult::Passed, "passed  ")).collect();
    folded(&format!("Cases: {}", CaseCounts::of(cases)), &lines.join("\n"))
}

fn reason(verdict: &Verdict) -> Markup {
    match verdict {
        Verdict::Passed | Verdict::Interrupted => Markup::default(),
        Verdict::Skipped(reason) => html! { p.warn { (reason) } },
        Verdict::Failed(reason) => html! { pre.warn { (lines(reason)) } },
    }
}

/// A unified difference with its lines coloured.
fn difference(difference: &str) -> Markup {
    let class = |number: usize, line: &str| match line.as_bytes().first() {
        Some(b'+' | b'-') if number < 2 => Some("soft"),
        Some(b'+') => Some("add"),
        Some(b'-') => Some("del"),
        Some(b'@') => Some("soft"),
        _ => None,
    };
    html! {
        h3 { "Difference to the snapshot" }
        pre.diff {
            @for (number, line) in difference.lines().enumerate() {
                @match class(number, line) {
                    Some(class) => { span.(class) { (line) } }
                    None => { (line) }
                }
                "\n"
            }
        }
    }
}

fn figures(outcome: &Outcome) -> Markup {
    if outcome.figures.is_empty() {
        return Markup::default();
    }
    html! {
        h3 { "Figures" }
        table.figures {
            tbody {
                @for figure in &outcome.figures { tr { th scope="row" { (figure.name) } td { (figure.value) } } }
            }
        }
    }
}

fn folded(what: &str, text: &str) -> Markup {
    html! { details { summary { (what) } pre { (lines(text)) } } }
}

fn links(outcome: &Outcome, folder: &Path) -> Markup {
    if outcome.files.is_empty() {
        return Markup::default();
    }
    let artifacts = diff_paths(&outcome.artifacts, folder).unwrap_or_else(|| outcome.artifacts.clone());
    let target = |name: &str| utf8_percent_encode(&artifacts.join(name).to_string_lossy(), PATH).to_string();
    html! {
        p.links { @for name in &outcome.files { a href=(target(name)) { (name) } " " } }
    }
}

/// Several lines, whatever ends them.
fn lines(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("\n")
}
