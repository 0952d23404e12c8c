//! Self-contained HTML pages with charts, for the reports of this workspace.
//!
//! No script, no font, no request: what a page shows is in it, and its policy forbids it to load anything. Charts are
//! inline SVG whose colours come from the style sheet, so a page follows the reader's light or dark theme.

pub mod markup;
pub mod plot;
pub mod scale;

use markup::clean;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// What all pages look like.
const BASE: &str = include_str!("base.css");

/// What a page may load: nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A page, complete. `style` is what the base style sheet lacks. Characters that no page shows are replaced.
pub fn document(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE) "\n"
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(BASE)) (PreEscaped(style)) }
            }
            body { main { (body) } }
        }
    };
    clean(&(page.into_string() + "\n"))
}
