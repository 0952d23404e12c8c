//! The head of the page: what was measured, how, and the figures to take home.

use super::view::{View, count, counted, name, percent, ratio};
use crate::bench::text::compressed;
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// Title, what was measured, and what went wrong.
pub(super) fn head(view: &View<'_>) -> Markup {
    let report = view.report;
    let source = &report.source;
    let parts = counted(source.parts, "part");
    let skipped = match source.skipped {
        0 => String::new(),
        1 => "; 1 link or special file passed over".to_owned(),
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
                "{} of {} ({} of 4 KiB from {parts}{skipped})",
                format_bytes(source.bytes_measured),
                format_bytes(source.bytes_found),
                counted(source.pages, "page")
            ),
        ),
        ("Sampling", how),
        (
            "Machine",
            format!(
                "{}, {} compressing",
                counted(machine.cpus as u64, "CPU"),
                counted(machine.threads as u64, "thread")
            ),
        ),
        ("Program", format!("cxl-cram-device {}, {:.1} s", report.version, source.seconds)),
    ];
    html! {
        header {
            h1 { "How well this memory compresses" }
            p.soft { "Codecs, block sizes, speed, and what a compressed CXL memory device could promise for it." }
            dl { @for (term, text) in rows { dt { (term) } dd { (text) } } }
            @if source.holes_bytes > 0 {
                p.warn {
                    (format_bytes(source.holes_bytes)) " of sparse files were never written; these holes are left out."
                }
            }
            @if !source.compressed.is_empty() { p.warn { (compressed(source)) } }
            @if source.interrupted {
                p.warn { "The run was interrupted: the figures are of what was measured until then." }
            }
            @if !report.failures.is_empty() {
                .warn {
                    p { "Not everything could be read:" }
                    ul { @for failure in &report.failures { li { (failure) } } }
                }
            }
        }
    }
}

/// The key figures.
pub(super) fn cards(view: &View<'_>) -> Markup {
    let report = view.report;
    let Some(key) = view.key() else { return Markup::default() };
    let same = report.same_filled.zero.saturating_add(report.same_filled.other);
    let share_of = |part: u64| percent(part as f64 / report.source.pages.max(1) as f64);
    let (promise, note) = match &report.planner {
        Some(plan) => (
            format!("{}x", ratio(plan.overcommit)),
            format!("{} on {} of media", format_bytes(plan.capacity), format_bytes(plan.physical)),
        ),
        None => ("–".to_owned(), "no plan: see below".to_owned()),
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
    html! {
        ul.cards {
            @for (name, value, note) in cards {
                li { span.name { (name) } span.value { (value) } span.note { (note) } }
            }
        }
    }
}
