//! The report as one self-contained HTML page.
//!
//! No script, no font, no request: what the page shows is in it, and its policy forbids it to load anything. Charts
//! are inline SVG whose colours come from the style sheet, so the page follows the reader's light or dark theme.

mod frontier;
mod labels;
mod markup;
mod planner;
mod plot;
mod ratios;
mod scale;
mod sizes;
mod summary;
mod table;
mod view;

use super::report::Report;
use markup::escape;
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
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}: cxl-cram bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{head}{body}{again}\
         </main>\n</body>\n</html>\n",
        title = escape(&report.source.what),
        head = summary::head(&view),
        again = again(&view),
    )
}

/// How to get the numbers again.
fn again(view: &View<'_>) -> String {
    let mut command = "cxl-cram-device bench".to_owned();
    if !view.codecs.is_empty() {
        let sizes: Vec<_> = view.block_sizes.iter().map(|bytes| block_size_flag(*bytes)).collect();
        command.push_str(&format!(" --codec {} --block-size {}", view.codecs.join(","), sizes.join(",")));
    }
    if let Some(sample) = &view.report.source.sampled {
        command.push_str(&format!(" --sample {}", sample.bytes));
    }
    command.push_str(" --html bench.html INPUT...");
    format!(
        "<section>\n<h2>Get the numbers again</h2>\n<pre>{}</pre>\n\
         <p class=\"soft\">INPUT is what the head of this page names as the source. Ratios of the same bytes come out the \
         same; times depend on the machine and on what else it does. Add <code>--json</code> for the same figures, exact, \
         for a program.</p>\n</section>\n",
        escape(&command)
    )
}

/// A block size as `--block-size` takes it: `4K`.
fn block_size_flag(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) { format!("{}K", bytes / 1024) } else { bytes.to_string() }
}
