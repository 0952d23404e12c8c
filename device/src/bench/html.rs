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
use cxl_cram_kit::html::document;
use cxl_cram_kit::size::exact_bytes;
use maud::html;
use view::View;

const STYLE: &str = include_str!("html/style.css");

/// The page, complete: equal reports give equal pages. Names from outside are escaped.
pub fn page(report: &Report) -> String {
    let view = View::new(report);
    let body = html! {
        (summary::head(&view))
        @if report.results.is_empty() {
            section { p { "Nothing was measured, so there is nothing to show." } }
        } @else {
            (summary::cards(&view))
            (sizes::section(&view))
            (ratios::section(&view))
            (frontier::section(&view))
            (planner::section(&view))
            (table::section(&view))
        }
        section {
            h2 { "Get the numbers again" }
            pre { (again(&view)) }
            p.soft {
                "INPUT is what the head of this page names as the source (" code { "--pid" } " for a process). Ratios of \
                 the same bytes come out the same; times depend on the machine and on what else it does. Add "
                code { "--json" } " for the same figures, exact, for a program."
            }
        }
    };
    document(&format!("{}: cxl-cram bench", report.source.what), STYLE, &body)
}

/// The command that gets the numbers again.
fn again(view: &View<'_>) -> String {
    let mut command = "cxl-cram-device bench".to_owned();
    if !view.codecs.is_empty() {
        let sizes: Vec<_> = view.block_sizes.iter().map(|bytes| exact_bytes(*bytes)).collect();
        command.push_str(&format!(" --codec {} --block-size {}", view.codecs.join(","), sizes.join(",")));
    }
    match &view.report.source.sampled {
        Some(sample) => command.push_str(&format!(" --sample {} --seed {}", exact_bytes(sample.bytes), sample.seed)),
        None => command.push_str(" --all"),
    }
    if let Some(plan) = &view.report.planner {
        command.push_str(&format!(
            " --physical {} --window {} --odds {:e} --write-rate {} --reclaim-rate {} --reaction {} --hysteresis {}",
            exact_bytes(plan.physical),
            plan.window_mib,
            plan.odds,
            plan.write_mib_s,
            plan.reclaim_mib_s,
            plan.reaction_ms,
            plan.hysteresis_ms
        ));
    }
    command + " --html bench.html INPUT..."
}
