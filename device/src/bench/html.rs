//! The report as one self-contained HTML page.

mod frontier;
mod labels;
mod planner;
mod ratios;
mod sizes;
mod summary;
mod table;
mod view;

use super::report::Report;
use crate::html::{document, markup::escape};
use view::View;

const STYLE: &str = include_str!("html/style.css");

/// The page, complete: equal reports give equal pages. Names from outside are escaped.
pub fn page(report: &Report) -> String {
    let view = View::new(report);
    let body = if report.results.is_empty() {
        "<section><p>Nothing was measured, so there is nothing to show.</p></section>\n".to_owned()
    } else {
        [
            summary::cards(&view),
            sizes::section(&view),
            ratios::section(&view),
            frontier::section(&view),
            planner::section(&view),
            table::section(&view),
        ]
        .concat()
    };
    let title = format!("{}: cxl-cram bench", report.source.what);
    document(&title, STYLE, &[summary::head(&view), body, again(&view)].concat())
}

/// How to get the numbers again.
fn again(view: &View<'_>) -> String {
    let mut command = "cxl-cram-device bench".to_owned();
    if !view.codecs.is_empty() {
        let sizes: Vec<_> = view.block_sizes.iter().map(|bytes| size_flag(*bytes)).collect();
        command.push_str(&format!(" --codec {} --block-size {}", view.codecs.join(","), sizes.join(",")));
    }
    match &view.report.source.sampled {
        Some(sample) => command.push_str(&format!(" --sample {} --seed {}", size_flag(sample.bytes), sample.seed)),
        None => command.push_str(" --all"),
    }
    if let Some(plan) = &view.report.planner {
        command.push_str(&format!(
            " --physical {} --window {} --odds {:e} --write-rate {} --reclaim-rate {} --reaction {} --hysteresis {}",
            size_flag(plan.physical),
            plan.window_mib,
            plan.odds,
            plan.write_mib_s,
            plan.reclaim_mib_s,
            plan.reaction_ms,
            plan.hysteresis_ms
        ));
    }
    command.push_str(" --html bench.html INPUT...");
    format!(
        "<section>\n<h2>Get the numbers again</h2>\n<pre>{}</pre>\n\
         <p class=\"soft\">INPUT is what the head of this page names as the source (<code>--pid</code> for a process). \
         Ratios of the same bytes come out the same; times depend on the machine and on what else it does. Add <code>--json</code> for the same figures, exact, \
         for a program.</p>\n</section>\n",
        escape(&command)
    )
}

/// A size as the flags take it, exact: `4K`, `256G`, `1000`.
fn size_flag(bytes: u64) -> String {
    [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}
