//! Panels over one time axis, with the steps of the story as numbered rules through all of them.

use cxl_cram_kit::html::{
    markup::{Anchor, Svg, text_width},
    plot::{Area, Size, horizontal_axis, plain, vertical_axis},
    scale::{Scale, round_up},
};
use maud::Markup;

/// Pixels left and right of the panels.
const MARGINS: (f64, f64) = (66.0, 22.0);
/// Pixels above a panel, for its title.
const TITLE: f64 = 32.0;
/// How much wider than ordinary text bold text is at most, the pixels between two names, and those of a row of names.
const BOLD: f64 = 1.2;
const APART: f64 = 14.0;
const NAMES: f64 = 15.0;
/// Pixels of a row of ticks.
const ROW: f64 = 20.0;

/// A chart. Times are in seconds.
pub(super) struct Chart {
    /// Its name, for those who do not see it.
    pub(super) title: String,
    /// What it shows, for them too.
    pub(super) description: String,
    /// What moments are counted from, in words.
    pub(super) axis: &'static str,
    /// First and last moment.
    pub(super) span: (f64, f64),
    /// When the steps began, in order.
    pub(super) marks: Vec<f64>,
    /// From top to bottom.
    pub(super) panels: Vec<Panel>,
    /// What a pointer at rest says of the time around a moment.
    pub(super) hovers: Vec<(f64, String)>,
}

/// A part of a chart.
pub(super) enum Panel {
    /// Values over time.
    Lines {
        /// What is measured, and its unit.
        title: String,
        /// Pixels.
        height: f64,
        /// The lines, later ones above.
        lines: Vec<Line>,
        /// Times that are shaded.
        shades: Vec<(f64, f64)>,
        /// The axis goes up to this at least.
        at_least: f64,
        /// Whether the names of the lines stand above them.
        named: bool,
        /// The names in the panel that this one stands beside, for which it keeps as much room.
        beside: Vec<String>,
    },
    /// Moments at which something happened: a row each.
    Ticks {
        /// What happened.
        title: String,
        /// The name of a row and its moments.
        rows: Vec<(String, Vec<f64>)>,
    },
}

/// A line, broken where nothing is known.
pub(super) struct Line {
    /// What it is.
    pub(super) name: String,
    /// CSS classes of the stroke, and of the area below it if that is wanted.
    pub(super) classes: (&'static str, Option<&'static str>),
    /// Unbroken runs of moment and value.
    pub(super) runs: Vec<Vec<(f64, f64)>>,
}

impl Line {
    fn most(&self) -> f64 {
        self.runs.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max)
    }
}

impl Panel {
    fn title(&self) -> &str {
        match self {
            Self::Lines { title, .. } | Self::Ticks { title, .. } => title,
        }
    }

    /// The same panel with nothing in it.
    fn blank(&self) -> Self {
        match self {
            Self::Lines { title, height, .. } => Self::Lines {
                title: title.clone(),
                height: *height,
                lines: Vec::new(),
                shades: Vec::new(),
                at_least: 0.0,
                named: true,
                beside: Vec::new(),
            },
            Self::Ticks { title, rows } => {
                let rows = rows.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
                Self::Ticks { title: title.clone(), rows }
            }
        }
    }

    /// Gives this panel the scale, the size and the rows of another with the same title.
    fn follow(&mut self, other: &Self) {
        match (self, other) {
            (
                Self::Lines { height, lines, at_least, named, beside, .. },
                Self::Lines { height: other_height, lines: others, at_least: others_least, .. },
            ) => {
                let most = lines.iter().chain(others).map(Line::most).fold(0.0, f64::max);
                *beside = others.iter().map(|line| line.name.clone()).collect();
                (*height, *at_least, *named) = (height.max(*other_height), most.max(*others_least), true);
            }
            (Self::Ticks { rows, .. }, Self::Ticks { rows: others, .. }) => {
                let missing = others.iter().filter(|(name, _)| rows.iter().all(|(there, _)| there != name));
                let missing: Vec<_> = missing.map(|(name, _)| (name.clone(), Vec::new())).collect();
                rows.extend(missing);
                rows.sort_by_key(|(name, _)| others.iter().position(|(other, _)| other == name).unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }

    /// Pixels above it, for its title and the names of its lines.
    fn head(&self, right: f64) -> f64 {
        match self {
            Self::Lines { title, lines, named: true, beside, .. } => {
                let own: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
                let beside: Vec<_> = beside.iter().map(String::as_str).collect();
                let rows = rows(title, &own, right).len().max(rows(title, &beside, right).len());
                TITLE + rows.saturating_sub(1) as f64 * NAMES
            }
            _ => TITLE,
        }
    }

    fn height(&self) -> f64 {
        match self {
            Self::Lines { height, .. } => *height,
            Self::Ticks { rows, .. } => rows.len() as f64 * ROW,
        }
    }
}

impl Chart {
    /// Makes two charts comparable: the same span, panels, scales and rows.
    pub(super) fn alike(&mut self, other: &mut Self) {
        let span = (self.span.0.min(other.span.0), self.span.1.max(other.span.1));
        for chart in [&mut *self, &mut *other] {
            chart.span = span;
        }
        let missing = |there: &[Panel], panel: &&Panel| there.iter().all(|one| one.title() != panel.title());
        let lacking: Vec<_> =
            other.panels.iter().filter(|panel| missing(&self.panels, panel)).map(Panel::blank).collect();
        self.panels.extend(lacking);
        let mut panels: Vec<Panel> = Vec::new();
        for panel in &mut self.panels {
            let at = other.panels.iter().position(|one| one.title() == panel.title());
            let mut same = at.map_or_else(|| panel.blank(), |at| other.panels.swap_remove(at));
            panel.follow(&same);
            same.follow(panel);
            panels.push(same);
        }
        other.panels = panels;
    }

    /// Has the names of all lines stand in the drawing, so that it needs no legend.
    pub(super) fn name_lines(&mut self) {
        for panel in &mut self.panels {
            if let Panel::Lines { named, .. } = panel {
                *named = true;
            }
        }
    }

    /// The drawing at one size.
    pub(super) fn draw(&self, size: Size, id: &str) -> Markup {
        self.sketch(size, id).finish()
    }

    /// Its height at this size.
    pub(super) fn height(&self, size: Size) -> f64 {
        let right = size.width() - MARGINS.1;
        self.top() + self.panels.iter().map(|panel| panel.height() + panel.head(right)).sum::<f64>() + 44.0
    }

    /// The numbers of the steps stand in a line of their own at the top.
    fn top(&self) -> f64 {
        if self.marks.is_empty() { 0.0 } else { 14.0 }
    }

    /// The drawing at one size, before it is finished.
    pub(super) fn sketch(&self, size: Size, id: &str) -> Svg {
        let width = size.width();
        let (left, right) = (MARGINS.0, width - MARGINS.1);
        let x = Scale::linear(self.span.0, self.span.1, (left, right));
        let top = self.top();
        let mut svg = Svg::new(id, width, self.height(size), &self.title, &self.description);
        let mut area = Area { left, right, top, bottom: top };
        for panel in &self.panels {
            area.top = area.bottom + panel.head(right);
            area.bottom = area.top + panel.height();
            panel.draw(&mut svg, area, x);
        }
        let all = Area { top: top + TITLE, ..area };
        for &mark in &self.marks {
            svg.line("stepline", (x.at(mark), top + 4.0), (x.at(mark), all.bottom));
        }
        for (at, label) in numbers(&self.marks, x) {
            svg.text("num", (at, 11.0), Anchor::Middle, &label);
        }
        horizontal_axis(&mut svg, area, x, &x.ticks(size.ticks()), plain, self.axis);
        if size == Size::Wide {
            self.hover(&mut svg, all, x);
        }
        svg
    }

    /// Columns that answer to a pointer.
    fn hover(&self, svg: &mut Svg, area: Area, x: Scale) {
        for (index, (at, text)) in self.hovers.iter().enumerate() {
            let middle = |other: Option<&(f64, String)>, edge: f64| {
                other.map_or(edge, |(other, _)| f64::midpoint(x.at(*at), x.at(*other)))
            };
            let from = middle(index.checked_sub(1).and_then(|before| self.hovers.get(before)), area.left);
            let to = middle(self.hovers.get(index + 1), area.right);
            svg.rect("hover", (from, area.top), (to - from, area.bottom - area.top), text);
        }
    }
}

impl Panel {
    fn draw(&self, svg: &mut Svg, area: Area, x: Scale) {
        match self {
            Self::Lines { title, height, lines, shades, at_least, named, .. } => {
                let most = lines.iter().map(Line::most).fold(*at_least, f64::max);
                let ticks = if *height > 100.0 { 5 } else { 2 };
                let y = Scale::linear(0.0, round_up(most, ticks), area.up());
                for (from, to) in shades {
                    let (from, to) = (x.at(*from), x.at(*to));
                    svg.rect("blocked", (from, area.top), (to - from, area.bottom - area.top), "");
                }
                vertical_axis(svg, area, y, &y.ticks(ticks), plain, title);
                if *named {
                    names(svg, area, title, lines);
                }
                for line in lines {
                    line.draw(svg, area, x, y);
                }
            }
            Self::Ticks { title, rows } => {
                svg.text("soft", (0.0, area.top - 12.0), Anchor::Start, title);
                for (index, (name, moments)) in rows.iter().enumerate() {
                    let (top, bottom) = (area.top + index as f64 * ROW, area.top + (index + 1) as f64 * ROW);
                    svg.line("grid", (area.left, bottom - 3.0), (area.right, bottom - 3.0));
                    svg.text("soft", (area.left - 7.0, bottom - 5.0), Anchor::End, name);
                    for &moment in moments {
                        svg.line("tick", (x.at(moment), top + 4.0), (x.at(moment), bottom - 3.0));
                    }
                }
            }
        }
    }
}

impl Line {
    fn draw(&self, svg: &mut Svg, area: Area, x: Scale, y: Scale) {
        for run in &self.runs {
            let points: Vec<_> = thinned(run).into_iter().map(|(at, value)| (x.at(at), y.at(value))).collect();
            let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else { continue };
            if let Some(class) = self.classes.1 {
                let below = points.iter().copied().chain([(last.0, area.bottom), (first.0, area.bottom)]);
                svg.path(class, &below.collect::<Vec<_>>());
            }
            svg.path(self.classes.0, &points);
        }
    }
}

/// Without the points inside level stretches, which a drawing does not need.
fn thinned(run: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let level = |at: usize| at > 0 && at + 1 < run.len() && run[at - 1].1 == run[at].1 && run[at].1 == run[at + 1].1;
    (0..run.len()).filter(|&at| !level(at)).map(|at| run[at]).collect()
}

/// The names of lines above them at the right, each in its colour; the line that is on top comes first, from the right.
fn names(svg: &mut Svg, area: Area, title: &str, lines: &[Line]) {
    let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
    let series = |line: &Line| {
        line.classes.0.rsplit(' ').next().filter(|class| class.starts_with('s') && class.len() == 2).unwrap_or_default()
    };
    let mut lines = lines.iter();
    for (index, count) in rows(title, &names, area.right).into_iter().enumerate() {
        let row = lines.by_ref().take(count).filter(|line| !line.name.is_empty());
        let mut texts: Vec<_> = row.map(|line| (series(line), line.name.as_str())).collect();
        texts.reverse();
        if !texts.is_empty() {
            svg.texts("names", (area.right, area.top - 12.0 - index as f64 * NAMES), APART, &texts);
        }
    }
}

/// How many names are in each row, from the lowest, which is the title's too. Fonts differ, so there is room for wide ones.
fn rows(title: &str, names: &[&str], right: f64) -> Vec<usize> {
    let mut rows = Vec::new();
    let (mut count, mut left) = (0, right - text_width(title));
    for name in names {
        let width = text_width(name) * BOLD + APART;
        if left < width {
            rows.push(count);
            (count, left) = (0, right);
        }
        (count, left) = (count + 1, left - width);
    }
    rows.push(count);
    rows
}

/// Where the numbers of the steps stand. Those that would run into each other are one: `3–5`.
fn numbers(marks: &[f64], x: Scale) -> Vec<(f64, String)> {
    let mut groups: Vec<(f64, usize, usize)> = Vec::new();
    let label =
        |first: usize, last: usize| if first == last { format!("{first}") } else { format!("{first}–{last}") };
    for (index, &mark) in marks.iter().enumerate() {
        let (at, number) = (x.at(mark), index + 1);
        let joins = groups.last().is_some_and(|&(before, first, last)| {
            let room = text_width(&label(first, last)) / 2.0 + text_width(&label(number, number)) / 2.0 + 4.0;
            at - before < room
        });
        match groups.last_mut() {
            Some(group) if joins => group.2 = number,
            _ => groups.push((at, number, number)),
        }
    }
    groups.into_iter().map(|(at, first, last)| (at, label(first, last))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_steps_do_not_run_into_each_other() {
        let x = Scale::linear(0.0, 100.0, (0.0, 300.0));
        let marks: Vec<f64> = [0.0, 1.0, 2.0, 30.0, 31.0, 60.0].into();
        let numbers = numbers(&marks, x);
        let labels: Vec<_> = numbers.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["1–3", "4–5", "6"]);
        for pair in numbers.windows(2) {
            let edge = |(at, label): &(f64, String), side: f64| at + side * text_width(label) / 2.0;
            assert!(edge(&pair[0], 1.0) < edge(&pair[1], -1.0), "{pair:?}");
        }
    }

    #[test]
    fn names_that_do_not_fit_beside_the_title_go_on_above_it() {
        let names = ["demoted", "on the tier", "promoted", "refused", "to swap"];
        assert_eq!(rows("1000 pages", &names, 968.0), [5]);
        assert_eq!(rows("1000 pages", &names, 318.0), [2, 3]);
        let width = |names: &[&str]| names.iter().map(|name| text_width(name) * BOLD + APART).sum::<f64>();
        assert!(text_width("1000 pages") + width(&names[..2]) <= 318.0 && width(&names[2..]) <= 318.0);
        assert_eq!(rows("a title as wide as the drawing", &names[..1], 200.0), [0, 1]);
        assert_eq!(rows("pressure", &[], 318.0), [0]);
    }

    #[test]
    fn a_level_stretch_keeps_its_ends() {
        let run = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 5.0), (4.0, 5.0)];
        assert_eq!(thinned(&run), [(0.0, 1.0), (2.0, 1.0), (3.0, 5.0), (4.0, 5.0)]);
    }
}
