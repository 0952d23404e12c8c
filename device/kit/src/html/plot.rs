//! The frame of a chart: margins, grid lines, tick labels and axis titles around two scales.

use super::markup::{Anchor, Svg};
use super::scale::Scale;
use maud::{Markup, html};

/// Widths a chart is drawn at. Text in an SVG scales with it, so a narrow page gets its own drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The whole sheet of a wide page.
    Wide,
    /// Half of the sheet of a wide page.
    Half,
    /// A narrow page.
    Narrow,
}

impl Size {
    /// Width of the drawing in pixels.
    pub fn width(self) -> f64 {
        match self {
            Size::Wide => 1000.0,
            Size::Half => 490.0,
            Size::Narrow => 340.0,
        }
    }

    /// The CSS class that shows this drawing only where it belongs.
    pub fn class(self) -> &'static str {
        if self == Size::Narrow { "narrow" } else { "wide" }
    }

    /// About how many ticks fit on the horizontal axis.
    pub fn ticks(self) -> usize {
        match self {
            Size::Wide => 10,
            Size::Half => 6,
            Size::Narrow => 4,
        }
    }
}

/// Draws one chart at the widths given, each shown where it belongs. `draw` gets the size and an id for it.
pub fn at_sizes(id: &str, sizes: [Size; 2], draw: impl Fn(Size, &str) -> Markup) -> Markup {
    html! {
        @for size in sizes {
            div.(size.class()) { (draw(size, &format!("{id}-{}", size.class()))) }
        }
    }
}

/// The pixels inside the axes.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Top edge.
    pub top: f64,
    /// Bottom edge.
    pub bottom: f64,
}

impl Area {
    /// Pixels for a horizontal scale.
    pub fn across(&self) -> (f64, f64) {
        (self.left, self.right)
    }

    /// Pixels for a vertical scale: large values are up.
    pub fn up(&self) -> (f64, f64) {
        (self.bottom, self.top)
    }
}

/// Horizontal grid lines with a label at the left of each, and the title of that axis above them.
pub fn vertical_axis(
    svg: &mut Svg,
    area: Area,
    scale: Scale,
    ticks: &[f64],
    label: impl Fn(f64) -> String,
    title: &str,
) {
    for &tick in ticks {
        let y = scale.at(tick);
        svg.line("grid", (area.left, y), (area.right, y));
        svg.text("soft", (area.left - 7.0, y + 4.0), Anchor::End, &label(tick));
    }
    svg.text("soft", (0.0, area.top - 12.0), Anchor::Start, title);
}

/// Ticks with labels below the area, and the title of that axis below them.
pub fn horizontal_axis(
    svg: &mut Svg,
    area: Area,
    scale: Scale,
    ticks: &[f64],
    label: impl Fn(f64) -> String,
    title: &str,
) {
    svg.line("axis", (area.left, area.bottom), (area.right, area.bottom));
    for &tick in ticks {
        let x = scale.at(tick);
        svg.line("axis", (x, area.bottom), (x, area.bottom + 4.0));
        svg.text("soft", (x, area.bottom + 18.0), Anchor::Middle, &label(tick));
    }
    svg.text("soft", ((area.left + area.right) / 2.0, area.bottom + 36.0), Anchor::Middle, title);
}

/// A number for an axis, as short as it can be said: `0.5`, `2`, `1500`.
pub fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
