//! Self-contained HTML pages with charts, for whoever in this workspace reports something.
//!
//! No script, no font, no request: what a page shows is in it, and its policy forbids it to load anything. Charts are
//! inline SVG whose colours come from the style sheet, so a page follows the reader's light or dark theme.

pub mod markup;
pub mod plot;
pub mod scale;

use markup::escape;

/// What all pages look like.
const BASE: &str = include_str!("base.css");

/// A page, complete. `title` is text, `style` what the base style sheet lacks, `body` markup.
pub fn document(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{BASE}{style}</style>\n</head>\n<body>\n<main>\n{body}\
         </main>\n</body>\n</html>\n"
    )
}
