//! A report as the page looks at it: codecs, block sizes, the result that speaks for all, and numbers as text.

use crate::bench::report::{CodecResult, Report};
pub(super) use crate::bench::words::{count, counted};
use cxl_cram_kit::html::markup::series;
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// What every part of the page draws from.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The whole report.
    pub(super) report: &'a Report,
    /// Names of the codecs, in the order they were asked for.
    pub(super) codecs: Vec<&'a str>,
    /// Block sizes in bytes, ascending.
    pub(super) block_sizes: Vec<u64>,
}

impl<'a> View<'a> {
    /// A view of the report.
    pub(super) fn new(report: &'a Report) -> Self {
        let mut codecs: Vec<&str> = Vec::new();
        for result in &report.results {
            if !codecs.contains(&result.codec.as_str()) {
                codecs.push(&result.codec);
            }
        }
        let mut block_sizes: Vec<_> = report.results.iter().map(|r| r.block_size).collect();
        block_sizes.sort_unstable();
        block_sizes.dedup();
        Self { report, codecs, block_sizes }
    }

    /// The number of a codec, for its colour.
    pub(super) fn codec(&self, result: &CodecResult) -> usize {
        self.codecs.iter().position(|name| *name == result.codec).unwrap_or(0)
    }

    /// Results at this block size, in the order of the codecs.
    pub(super) fn at_block_size(&self, block_size: u64) -> impl Iterator<Item = &'a CodecResult> {
        self.report.results.iter().filter(move |r| r.block_size == block_size)
    }

    /// The result the key figures speak of: the planner's, else the first codec at the block size nearest to 4 KiB.
    pub(super) fn key(&self) -> Option<&'a CodecResult> {
        let results = &self.report.results;
        let planned = self
            .report
            .planner
            .as_ref()
            .and_then(|plan| results.iter().find(|r| r.codec == plan.codec && r.block_size == plan.block_size));
        planned.or_else(|| {
            let first = &results.first()?.codec;
            results.iter().filter(|r| r.codec == *first).min_by_key(|r| r.block_size.abs_diff(4096))
        })
    }

    /// The colours of the codecs, and what else a chart's marks mean (swatch class and text).
    pub(super) fn legend(&self, marks: &[(&str, &str)]) -> Markup {
        let codecs = self.codecs.iter().enumerate().map(|(i, name)| (series(i), *name));
        let marks = marks.iter().map(|(class, text)| ((*class).to_owned(), *text));
        html! {
            ul.legend { @for (class, text) in codecs.chain(marks) { li { span.swatch.(class) {} (text) } } }
        }
    }
}

/// A codec and its block size: `lz4, 4 KiB`.
pub(super) fn name(result: &CodecResult) -> String {
    format!("{}, {}", result.codec, format_bytes(result.block_size))
}

/// A ratio with two decimals, or a dash where the pages give no ground for one.
pub(super) fn ratio(value: impl Into<Option<f64>>) -> String {
    known(value.into(), |v| format!("{v:.2}"))
}

/// A share of a whole in per cent with one decimal; a dash of an empty whole.
pub(super) fn share(part: u64, whole: u64) -> String {
    known((whole > 0).then(|| part as f64 / whole as f64), percent)
}

/// A fraction in per cent with one decimal.
pub(super) fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// A throughput without decimals, or a dash.
pub(super) fn speed(value: Option<f64>) -> String {
    known(value, |v| count(v.max(0.0).round() as u64))
}

/// Nanoseconds as microseconds with one decimal.
pub(super) fn micros(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1000.0)
}

/// Milliseconds as people read them: `350 ms`, `12.5 s`.
pub(super) fn duration(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// A value in words of `say`, or a dash where there is none.
pub(super) fn known(value: Option<f64>, say: impl Fn(f64) -> String) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "–".to_owned(), say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(ratio(2.105), "2.10");
        assert_eq!(ratio(None), "–");
        assert_eq!(ratio(f64::INFINITY), "–");
        assert_eq!(share(1, 8), "12.5 %");
        assert_eq!(share(0, 0), "–");
        assert_eq!(duration(350), "350 ms");
        assert_eq!(duration(12_500), "12.5 s");
    }
}
