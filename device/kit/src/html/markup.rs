//! A small writer for inline SVG, and the last look at finished markup.
//!
//! Escaping is maud's. Colours are CSS classes only, so one drawing serves a light and a dark page.

use maud::{Markup, PreEscaped, html};
use std::fmt::Write;

/// Replaces by U+FFFD the characters that no page shows: controls other than line feed and tab, which XML forbids, and
/// those that turn the direction of text, which let a file name disguise what follows it.
pub(super) fn clean(markup: &str) -> String {
    let hidden = |c: char| match c {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    };
    markup.replace(hidden, "\u{fffd}")
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// The text is centred there.
    Middle,
    /// The text ends there.
    End,
}

/// One SVG drawing under construction. Lengths are in its own pixels, y grows downwards.
#[derive(Debug)]
pub struct Svg {
    id: String,
    view: String,
    content: String,
}

impl Svg {
    /// A drawing of `width` x `height` with a name and a description for those who do not see it.
    /// `id` must be unique in the page.
    pub fn new(id: &str, width: f64, height: f64, title: &str, description: &str) -> Self {
        let view = format!("0 0 {} {}", number(width), number(height));
        let mut svg = Self { id: id.to_owned(), view, content: String::new() };
        svg.push(html! {
            title id={ (id) "-t" } { (title) }
            desc id={ (id) "-d" } { (description) }
        });
        svg
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.push(html! { line class=(class) x1=(x1) y1=(y1) x2=(x2) y2=(y2) {} });
    }

    /// A rectangle; `hover` is shown by a pointer at rest.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), hover: &str) {
        let [x, y, width, height] = [at.0, at.1, size.0.max(0.0), size.1.max(0.0)].map(number);
        self.push(html! { rect class=(class) x=(x) y=(y) width=(width) height=(height) { (hover_title(hover)) } });
    }

    /// A dot; `hover` is shown by a pointer at rest.
    pub fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, hover: &str) {
        let [x, y, r] = [at.0, at.1, radius].map(number);
        self.push(html! { circle class=(class) cx=(x) cy=(y) r=(r) { (hover_title(hover)) } });
    }

    /// A line through all points; nothing for fewer than two.
    pub fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() < 2 {
            return;
        }
        let mut d = String::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, number(x), number(y));
        }
        self.push(html! { path class=(class) d=(d) {} });
    }

    /// A text whose base line is at `at`.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let [x, y] = [at.0, at.1].map(number);
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(html! { text class=(class) x=(x) y=(y) text-anchor=(anchor) { (text) } });
    }

    /// Texts side by side, each of a class of its own, whose last one ends at `at`. They are `apart` in every font.
    pub fn texts(&mut self, class: &str, at: (f64, f64), apart: f64, texts: &[(&str, &str)]) {
        let [x, y, apart] = [at.0, at.1, apart].map(number);
        self.push(html! {
            text class=(class) x=(x) y=(y) text-anchor="end" {
                @for (index, (class, text)) in texts.iter().enumerate() {
                    tspan class=(class) dx=[(index > 0).then_some(&apart)] { (text) }
                }
            }
        });
    }

    /// Another drawing inside this one, with its top left corner there.
    pub fn place(&mut self, at: (f64, f64), drawing: &Svg) {
        let [x, y] = [at.0, at.1].map(number);
        self.push(html! { g transform={ "translate(" (x) " " (y) ")" } { (PreEscaped(&drawing.content)) } });
    }

    /// The finished drawing as a file of its own, with the pages' style sheet and what that lacks.
    pub fn file(self, style: &str) -> String {
        // A style sheet may have what XML takes for markup.
        let style = PreEscaped(format!("<style><![CDATA[\n{}{style}]]></style>", super::BASE));
        clean(&(self.element(Some("http://www.w3.org/2000/svg"), &style).into_string() + "\n"))
    }

    /// The finished element.
    pub fn finish(self) -> Markup {
        self.element(None, &Markup::default())
    }

    fn element(&self, namespace: Option<&str>, style: &Markup) -> Markup {
        html! {
            svg xmlns=[namespace] viewBox=(self.view) role="img" aria-labelledby={ (self.id) "-t " (self.id) "-d" } {
                (style) (PreEscaped(&self.content))
            }
        }
    }

    fn push(&mut self, element: Markup) {
        self.content.push_str(&element.into_string());
        self.content.push('\n');
    }
}

fn hover_title(text: &str) -> Markup {
    html! { @if !text.is_empty() { title { (text) } } }
}

/// A coordinate with at most one decimal; what is not finite becomes 0, so that no drawing is ever broken by it.
fn number(value: f64) -> String {
    let tenths = if value.is_finite() { (value * 10.0).round() / 10.0 } else { 0.0 };
    // Adding zero turns -0 into 0.
    format!("{}", tenths + 0.0)
}

/// The class of the n-th series: colours repeat after eight.
pub fn series(n: usize) -> String {
    format!("s{}", n % 8)
}

/// A generous guess of how wide a text of the charts' 12 px is drawn, for placing labels without a font at hand.
pub fn text_width(text: &str) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 6.8 } else { 12.0 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_characters_that_no_page_shows_are_replaced() {
        let mut svg = Svg::new("a", 10.0, 10.0, "<i>", "\"'&");
        svg.text("soft", (0.0, 0.0), Anchor::Start, "a</text>\u{1b}[0m\u{202e}\u{0}");
        svg.rect("hover", (0.0, 0.0), (1.0, 1.0), "two\nlines");
        let file = svg.file(".a > .b {}");
        for text in ["<i>", "[0m</text><", "\u{1b}", "\u{202e}", "\u{0}"] {
            assert!(!file.contains(text), "{text:?} in {file}");
        }
        for text in ["&lt;i&gt;</title>", ">&quot;'&amp;</desc>", ">a&lt;/text&gt;\u{fffd}[0m\u{fffd}\u{fffd}</text>"] {
            assert!(file.contains(text), "{text:?} not in {file}");
        }
        assert!(file.contains("<title>two\nlines</title>"), "the lines of a hover are one a line: {file}");
        assert!(file.contains(".a > .b {}]]></style>"), "{file}");
    }
}
