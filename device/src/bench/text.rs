//! The report for people: a table, a small histogram and the plan, at most 100 columns wide.

use std::fmt::Write;

use super::report::{CodecResult, CurvePoint, Plan, Report, Source};
use super::words::{count, counted};
use cxl_cram_kit::size::format_bytes;

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
    if let Some(why) = &report.no_plan {
        style.heading(&mut out, "Plan");
        wrapped(&mut out, &format!("There is no plan: {why}."));
    }
    out
}

fn source(out: &mut String, report: &Report) {
    let source = &report.source;
    let _ = writeln!(out, "{}", shorten(&source.what));
    let found = match source.sampled.is_none() && !source.interrupted {
        true => format!("all {}", format_bytes(source.bytes_found)),
        false => format!("{} of {}", format_bytes(source.bytes_measured), format_bytes(source.bytes_found)),
    };
    let _ = writeln!(
        out,
        "measured {found} ({}), {:.1} s on {}",
        counted(source.parts, "part"),
        source.seconds,
        counted(report.machine.threads as u64, "thread")
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
    if source.holes_bytes > 0 {
        let _ = writeln!(out, "holes: {} were never written and are left out", format_bytes(source.holes_bytes));
    }
    if !source.compressed.is_empty() {
        let _ = writeln!(out, "{}", compressed(source));
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
    let mut at = 0;
    while let Some(count) = rows.get(at) {
        // Of rows without blocks one stands for all that follow each other.
        let alike = if *count == 0 { rows[at..].iter().take_while(|count| **count == 0).count() } else { 1 };
        let (first, last) = (at as u64 * step + 1, (at + alike) as u64 * step);
        row(out, &format!("{first}..{last} B"), *count);
        at += alike;
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
        "Watermarks for {} MiB/s demoted and {} MiB/s reclaimed: low {}, high {} free.\n\
         Such a device is served with\n{}",
        plan.write_mib_s,
        plan.reclaim_mib_s,
        format_bytes(plan.low_watermark),
        format_bytes(plan.high_watermark),
        plan.serve_flags().join(" ")
    );
    let _ = writeln!(out, "\n{:>10}   probability that a window overflows", "overcommit");
    for (overcommit, probability) in curve(&plan.curve) {
        let _ = writeln!(out, "{overcommit:>10.3}   {probability}");
    }
    let _ = writeln!(out, "\nAssumptions:");
    for line in &plan.assumptions {
        wrapped(out, &format!("- {line}"));
    }
}

/// Every fourth point with its probability in words, without those that repeat the one before: of several that never overflow the
/// last stands, of others alike the first.
fn curve(points: &[CurvePoint]) -> Vec<(f64, String)> {
    let mut rows: Vec<(f64, String)> = Vec::new();
    for point in points.iter().step_by(4) {
        let probability = probability(point.probability_of_overflow);
        match rows.last_mut() {
            Some((overcommit, last)) if *last == probability => {
                if point.probability_of_overflow == 0.0 {
                    *overcommit = point.overcommit;
                }
            }
            _ => rows.push((point.overcommit, probability)),
        }
    }
    rows
}

/// `0`, `3.10e-7`, `1`.
fn probability(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        0.995.. => "1".into(),
        _ => format!("{value:.2e}"),
    }
}

/// What of the input is compressed already.
pub(super) fn compressed(source: &Source) -> String {
    let parts = source.compressed.iter().map(|compressed| compressed.parts).sum();
    let formats: Vec<_> =
        source.compressed.iter().map(|found| format!("{} {}", count(found.parts), found.format)).collect();
    format!("compressed already: {} ({}), measured as the bytes there are", counted(parts, "part"), formats.join(", "))
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"))
}

fn block_size(bytes: u64) -> String {
    format!("{}K", bytes >> 10)
}

/// A sentence in lines of at most [`WIDTH`] columns, those after the first indented as an item of a list is.
fn wrapped(out: &mut String, sentence: &str) {
    let indent = if sentence.starts_with("- ") { "  " } else { "" };
    let mut line = String::new();
    for word in sentence.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = format!("{indent}{word}");
        } else {
            line = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        }
    }
    let _ = writeln!(out, "{line}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_has_no_two_rows_alike() {
        let point = |number: u32, probability_of_overflow| CurvePoint {
            overcommit: f64::from(number),
            probability_of_overflow,
        };
        let steps = [0.0, 0.0, 0.0, 1e-9, 1e-9, 0.5, 1.0, 1.0, 1.0].into_iter().enumerate();
        let points: Vec<_> = steps.flat_map(|(at, p)| (0..4).map(move |of| point(at as u32 * 4 + of, p))).collect();
        let rows = curve(&points);
        let expected = [(8.0, "0"), (12.0, "1.00e-9"), (20.0, "5.00e-1"), (24.0, "1")];
        assert_eq!(rows, expected.map(|(overcommit, text)| (overcommit, text.to_owned())));
    }
}
