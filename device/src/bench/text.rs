//! The report for people: a table, a small histogram and the plan, at most 100 columns wide.

use std::fmt::Write;

use super::report::{CodecResult, Plan, Report};
use crate::size::format_bytes;

/// Columns of the longest bar of the histogram.
const BAR: u64 = 40;
/// Columns of a line.
const WIDTH: usize = 100;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Headings in bold.
    pub(super) bold: bool,
}

impl Style {
    fn heading(self, out: &mut String, text: &str) {
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(out, "\n{on}{text}{off}");
    }
}

/// The report. Writing to a `String` cannot fail.
pub(super) fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    source(&mut out, report);
    table(&mut out, report, style);
    speed(&mut out, report, style);
    if let Some(result) = report.results.first() {
        histogram(&mut out, result, style);
    }
    if let Some(plan) = &report.planner {
        planner(&mut out, plan, style);
    }
    out
}

fn source(out: &mut String, report: &Report) {
    let source = &report.source;
    let _ = writeln!(out, "{}", shorten(&source.what));
    let all = if source.sampled.is_none() && !source.interrupted { "all of " } else { "" };
    let _ = writeln!(
        out,
        "measured {} of {all}{} found, in {} parts; {:.1} s on {} threads",
        format_bytes(source.bytes_measured),
        format_bytes(source.bytes_found),
        source.parts,
        source.seconds,
        report.machine.threads
    );
    if let Some(sample) = &source.sampled {
        let _ = writeln!(
            out,
            "a sample: runs of {}, spread evenly, seed {} (--all measures everything)",
            format_bytes(sample.run_bytes),
            sample.seed
        );
    }
    if source.interrupted {
        let _ = writeln!(out, "INTERRUPTED: this is what was measured until then");
    }
    let percent = |pages: u64| 100.0 * pages as f64 / source.pages.max(1) as f64;
    let _ = writeln!(
        out,
        "same-filled pages: {:.2} % zeros, {:.2} % another word",
        percent(report.same_filled.zero),
        percent(report.same_filled.other)
    );
}

fn table(out: &mut String, report: &Report, style: Style) {
    style.heading(out, "Ratios (with / without same-filled blocks)");
    let _ = writeln!(
        out,
        "{:<9} {:>6} {:>16} {:>17} {:>9} {:>8} {:>12}",
        "codec", "block", "data ratio", "effective ratio", "packing", "raw", "store check"
    );
    for result in &report.results {
        let check = result.store_check.as_ref().map(|check| {
            let off = 100.0 * (check.store_bytes as f64 / check.rule_bytes.max(1) as f64 - 1.0);
            format!("{off:+.2} %")
        });
        let _ = writeln!(
            out,
            "{:<9} {:>6} {:>16} {:>17} {:>9} {:>8} {:>12}",
            result.codec,
            block_size(result.block_size),
            format!("{} / {}", ratio(result.data_ratio), ratio(result.data_ratio_without_same_filled)),
            format!("{:.3} / {}", result.effective_ratio, ratio(result.effective_ratio_without_same_filled)),
            result.packing.map_or("-".into(), |packing| format!("{:.1} %", 100.0 * packing)),
            format!("{:.1} %", 100.0 * result.raw_blocks as f64 / result.blocks.max(1) as f64),
            check.unwrap_or("-".into())
        );
    }
}

fn speed(out: &mut String, report: &Report, style: Style) {
    style.heading(out, "Time of a block (median / 99 %), throughput of a core / of all");
    let _ = writeln!(
        out,
        "{:<9} {:>6} {:>19} {:>19} {:>20} {:>20}",
        "codec", "block", "compress us", "decompress us", "compress MiB/s", "decompress MiB/s"
    );
    for result in &report.results {
        let times = |times: &Option<super::report::BlockTime>| {
            times.as_ref().map_or("-".into(), |times| {
                format!("{:.1} / {:.1}", times.median_ns as f64 / 1e3, times.p99_ns as f64 / 1e3)
            })
        };
        let rates = |core: Option<f64>, all: Option<f64>| match (core, all) {
            (Some(core), Some(all)) => format!("{core:.0} / {all:.0}"),
            _ => "-".into(),
        };
        let throughput = &result.throughput;
        let _ = writeln!(
            out,
            "{:<9} {:>6} {:>19} {:>19} {:>20} {:>20}",
            result.codec,
            block_size(result.block_size),
            times(&result.compress),
            times(&result.decompress),
            rates(throughput.compress_per_core_mib_s, throughput.compress_all_cores_mib_s),
            rates(throughput.decompress_per_core_mib_s, throughput.decompress_all_cores_mib_s)
        );
    }
    if let Some(share) = report.results.first().and_then(|result| result.throughput.engine_over_raw) {
        let _ = writeln!(out, "the whole bench reaches {:.1} % of the bare codecs on the same pages", 100.0 * share);
    }
}

fn histogram(out: &mut String, result: &CodecResult, style: Style) {
    style.heading(out, &format!("Compressed sizes, {} at {}", result.codec, block_size(result.block_size)));
    let rows: Vec<u64> = result.histogram.chunks(4).map(|classes| classes.iter().sum()).collect();
    let step = result.block_size / rows.len().max(1) as u64;
    let (longest, all) = (rows.iter().copied().max().unwrap_or(0).max(1), result.blocks.max(1));
    let row = |out: &mut String, label: &str, count: u64| {
        let bar = "#".repeat((u128::from(count) * u128::from(BAR)).div_ceil(longest.into()).min(BAR.into()) as usize);
        let line = format!("{label:>15} {:>5.1} % {bar}", 100.0 * count as f64 / all as f64);
        let _ = writeln!(out, "{}", line.trim_end());
    };
    row(out, "same-filled", result.same_filled_blocks);
    for (at, count) in (0..).zip(rows) {
        row(out, &format!("{}..{} B", at * step + 1, (at + 1) * step), count);
    }
}

fn planner(out: &mut String, plan: &Plan, style: Style) {
    style.heading(out, &format!("Plan for {} at {}", plan.codec, block_size(plan.block_size)));
    let _ = writeln!(
        out,
        "With {} of media a device could promise {} (overcommit {:.3}),\n\
         so that at most one window of {} MiB in {:.0} overflows its share.",
        format_bytes(plan.physical),
        format_bytes(plan.capacity),
        plan.overcommit,
        plan.window_mib,
        1.0 / plan.odds
    );
    let _ = writeln!(
        out,
        "Watermarks for {} MiB/s demoted and {} MiB/s reclaimed: low {}, high {} free:\n\
         --low-watermark {} --high-watermark {}",
        plan.write_mib_s,
        plan.reclaim_mib_s,
        format_bytes(plan.low_watermark),
        format_bytes(plan.high_watermark),
        plan.low_watermark,
        plan.high_watermark
    );
    let _ = writeln!(out, "\n{:>10}   probability that a window overflows", "overcommit");
    for point in plan.curve.iter().step_by(4) {
        let _ = writeln!(out, "{:>10.3}   {:.2e}", point.overcommit, point.probability_of_overflow);
    }
    let _ = writeln!(out, "\nAssumptions:");
    for line in &plan.assumptions {
        let _ = writeln!(out, "- {line}");
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"))
}

fn block_size(bytes: u64) -> String {
    format!("{}K", bytes >> 10)
}

/// Names of inputs may be many and hold anything: one line, without control characters.
fn shorten(text: &str) -> String {
    let mut line: String = text.chars().take(WIDTH).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(WIDTH).is_some() {
        line.truncate(line.char_indices().nth(WIDTH - 3).map_or(0, |(at, _)| at));
        line.push_str("...");
    }
    line
}
