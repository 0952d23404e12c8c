//! The section of one scenario.

use std::path::Path;

use cxl_cram_device::html::markup::escape;
use pathdiff::diff_paths;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{badge, course};
use crate::scenario::report::{Outcome, Verdict};

/// All of a path but what every browser takes as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The section. Links are relative to `folder`, where the page is.
pub(super) fn section(outcome: &Outcome, id: &str, folder: &Path) -> String {
    let (name, story, kernel) = (escape(&outcome.name), escape(&outcome.story), escape(&outcome.kernel));
    [
        format!("<section id=\"{id}\">\n<h2>{} {name}</h2>\n<p>{story}</p>\n", badge(outcome)),
        format!("<p class=\"soft\">Linux {kernel}, {:.1} s</p>\n", outcome.seconds),
        reason(&outcome.verdict),
        outcome.difference.as_deref().map(difference).unwrap_or_default(),
        figures(outcome),
        course::section(&outcome.timeline, id),
        folded("Facts", &serde_json::to_string_pretty(&outcome.facts).unwrap_or_default(), outcome.facts.is_empty()),
        folded("End of the console", &outcome.console.join("\n"), outcome.console.is_empty()),
        links(outcome, folder),
        "</section>\n".to_owned(),
    ]
    .concat()
}

fn reason(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => String::new(),
        Verdict::Skipped(reason) => format!("<p class=\"warn\">{}</p>\n", escape(reason)),
        Verdict::Failed(reason) => format!("<pre class=\"warn\">{}</pre>\n", lines(reason)),
    }
}

/// A unified difference with its lines coloured.
fn difference(difference: &str) -> String {
    let line = |(number, line): (usize, &str)| {
        let class = match line.as_bytes().first() {
            Some(b'+' | b'-') if number < 2 => "soft",
            Some(b'+') => "add",
            Some(b'-') => "del",
            Some(b'@') => "soft",
            _ => return escape(line) + "\n",
        };
        format!("<span class=\"{class}\">{}</span>\n", escape(line))
    };
    let lines: String = difference.lines().enumerate().map(line).collect();
    format!("<h3>Difference to the snapshot</h3>\n<pre class=\"diff\">{lines}</pre>\n")
}

fn figures(outcome: &Outcome) -> String {
    if outcome.figures.is_empty() {
        return String::new();
    }
    let row = |name: &str, value: &str| {
        format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value))
    };
    let rows: String = outcome.figures.iter().map(|figure| row(&figure.name, &figure.value)).collect();
    format!("<h3>Figures</h3>\n<table class=\"figures\">\n<tbody>\n{rows}</tbody>\n</table>\n")
}

fn folded(what: &str, text: &str, nothing: bool) -> String {
    if nothing {
        return String::new();
    }
    format!("<details>\n<summary>{what}</summary>\n<pre>{}</pre>\n</details>\n", lines(text))
}

fn links(outcome: &Outcome, folder: &Path) -> String {
    if outcome.files.is_empty() {
        return String::new();
    }
    let artifacts = diff_paths(&outcome.artifacts, folder).unwrap_or_else(|| outcome.artifacts.clone());
    let link = |name: &String| {
        let path = artifacts.join(name);
        let target = utf8_percent_encode(&path.to_string_lossy(), PATH).to_string();
        format!("<a href=\"{target}\">{}</a>", escape(name))
    };
    let links: Vec<_> = outcome.files.iter().map(link).collect();
    format!("<p class=\"links\">{}</p>\n", links.join(" "))
}

/// Several lines escaped, still several lines.
fn lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}
