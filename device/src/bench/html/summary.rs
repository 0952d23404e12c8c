//! The head of the page: what was measured, how, and the figures to take home.

use super::view::{View, count, name, percent, ratio};
use crate::html::markup::escape;
use crate::size::format_bytes;

/// Title, what was measured, and what went wrong.
pub(super) fn head(view: &View<'_>) -> String {
    let report = view.report;
    let source = &report.source;
    let parts = if source.parts == 1 { "1 part".to_owned() } else { format!("{} parts", count(source.parts)) };
    let skipped = match source.skipped {
        0 => String::new(),
        n => format!("; {} links and special files passed over", count(n)),
    };
    let how = match &source.sampled {
        Some(sample) => format!(
            "a sample of {}, in runs of {} spread evenly, each at a random place of its share (seed {})",
            format_bytes(sample.bytes),
            format_bytes(sample.run_bytes),
            sample.seed
        ),
        None => "none: all of it".to_owned(),
    };
    let machine = &report.machine;
    let rows = [
        ("Source", source.what.clone()),
        (
            "Measured",
            format!(
                "{} of {} ({} pages of 4 KiB from {parts}{skipped})",
                format_bytes(source.bytes_measured),
                format_bytes(source.bytes_found),
                count(source.pages)
            ),
        ),
        ("Sampling", how),
        ("Machine", format!("{} CPUs, {} threads compressing", machine.cpus, machine.threads)),
        ("Program", format!("cxl-cram-device {}, {:.1} s", report.version, source.seconds)),
    ];
    let rows: String = rows.iter().map(|(term, text)| format!("<dt>{term}</dt><dd>{}</dd>\n", escape(text))).collect();
    let mut out = format!(
        "<header>\n<h1>How well this memory compresses</h1>\n\
         <p class=\"soft\">Codecs, block sizes, speed, and what a compressed CXL memory device could promise for it.</p>\n\
         <dl>\n{rows}</dl>\n"
    );
    if source.interrupted {
        out.push_str(
            "<p class=\"warn\">The run was interrupted: the figures are of what was measured until then.</p>\n",
        );
    }
    if !report.failures.is_empty() {
        let failures: String = report.failures.iter().map(|f| format!("<li>{}</li>", escape(f))).collect();
        out.push_str(&format!("<div class=\"warn\"><p>Not everything could be read:</p><ul>{failures}</ul></div>\n"));
    }
    out.push_str("</header>\n");
    out
}

/// The key figures.
pub(super) fn cards(view: &View<'_>) -> String {
    let report = view.report;
    let Some(key) = view.key() else { return String::new() };
    let same = report.same_filled.zero.saturating_add(report.same_filled.other);
    let share_of = |part: u64| percent(part as f64 / report.source.pages.max(1) as f64);
    let (promise, note) = match &report.planner {
        Some(plan) => (
            format!("{}x", ratio(plan.overcommit)),
            format!("{} on {} of media", format_bytes(plan.capacity), format_bytes(plan.physical)),
        ),
        None => ("–".to_owned(), "too little data for the planner".to_owned()),
    };
    let cards = [
        (
            "Data ratio",
            ratio(key.data_ratio),
            format!("{}; {} without same-filled", name(key), ratio(key.data_ratio_without_same_filled)),
        ),
        (
            "Effective ratio",
            ratio(key.effective_ratio),
            format!("slabs and map counted; {} without same-filled", ratio(key.effective_ratio_without_same_filled)),
        ),
        (
            "Same-filled pages",
            share_of(same),
            format!("{} zeros, {} another word", share_of(report.same_filled.zero), share_of(report.same_filled.other)),
        ),
        ("Recommended overcommit", promise, note),
    ];
    let cards: String = cards
        .iter()
        .map(|(name, value, note)| {
            format!(
                "<li><span class=\"name\">{name}</span><span class=\"value\">{}</span><span class=\"note\">{}</span></li>\n",
                escape(value),
                escape(note)
            )
        })
        .collect();
    format!("<ul class=\"cards\">\n{cards}</ul>\n")
}
