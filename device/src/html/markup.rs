//! Text into markup: escaping, and a small writer for inline SVG.
//!
//! Everything that came from outside (file names, codec names, a machine's name) passes [`escape`]; the writer does so
//! with every text it is given. Colours are CSS classes only, so one drawing serves a light and a dark page.

use std::fmt::Write;

/// Makes text safe between tags and inside quoted attributes.
///
/// Control characters and those that turn the direction of text are replaced by U+FFFD: XML forbids the former, and
/// the latter let a file name disguise what follows it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
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
    out: String,
}

impl Svg {
    /// A drawing of `width` x `height` with a name and a description for those who do not see it.
    /// `id` must be unique in the page.
    pub fn new(id: &str, width: f64, height: f64, title: &str, description: &str) -> Self {
        let (id, title, description) = (escape(id), escape(title), escape(description));
        let size = format!("0 0 {} {}", number(width), number(height));
        Self {
            out: format!(
                "<svg viewBox=\"{size}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
                 <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>\n"
            ),
        }
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.push(format_args!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>\n"));
    }

    /// A rectangle; `hover` is shown by a pointer at rest.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), hover: &str) {
        let [x, y, w, h] = [at.0, at.1, size.0.max(0.0), size.1.max(0.0)].map(number);
        let hover = hover_title(hover);
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\">{hover}</rect>\n"
        ));
    }

    /// A dot; `hover` is shown by a pointer at rest.
    pub fn dot(&mut self, class: &str, at: (f64, f64), radius: f64, hover: &str) {
        let [x, y, r] = [at.0, at.1, radius].map(number);
        let hover = hover_title(hover);
        self.push(format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{r}\">{hover}</circle>\n"));
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
        self.push(format_args!("<path class=\"{class}\" d=\"{d}\"/>\n"));
    }

    /// A text whose base line is at `at`.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let [x, y] = [at.0, at.1].map(number);
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.push(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>\n"));
    }

    /// Another drawing inside this one, with its top left corner there.
    pub fn place(&mut self, at: (f64, f64), drawing: &Svg) {
        let [x, y] = [at.0, at.1].map(number);
        let inner = drawing.out.split_once('>').map_or("", |(_, inner)| inner);
        self.push(format_args!("<g transform=\"translate({x} {y})\">{inner}</g>\n"));
    }

    /// The finished drawing as a file of its own, with the pages' style sheet and what that lacks.
    pub fn file(self, style: &str) -> String {
        let drawing = self.finish().replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
        let (root, inner) = drawing.split_once('>').unwrap_or((&drawing, ""));
        // A style sheet may have what XML takes for markup.
        format!("{root}>\n<style><![CDATA[\n{}{style}]]></style>{inner}", super::BASE)
    }

    /// The finished element.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.out.write_fmt(text);
    }
}

fn hover_title(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<title>{}</title>", escape(text)) }
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
