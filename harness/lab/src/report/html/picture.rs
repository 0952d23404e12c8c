//! Charts as a drawing of their own, for a page that is not the report's: one, or two side by side.

use anyhow::{Context, Result, bail, ensure};
use cxl_cram_kit::html::{
    markup::{Anchor, Svg},
    plot::Size,
};

use super::chart::Chart;
use super::{STYLE, course};
use crate::record::timeline::Timeline;
use crate::report::Record;

/// Pixels above the charts, for their titles.
const HEAD: f64 = 30.0;
/// Pixels between two charts.
const APART: f64 = 20.0;

/// A scenario's chart, or that of one of its acts.
struct View {
    title: String,
    timeline: Timeline,
}

/// The SVG of what is named: `SCENARIO`, or `SCENARIO/N` for its Nth act. A scenario of two acts alone is both of them.
pub(in crate::report) fn svg(record: &Record, names: &[String]) -> Result<String> {
    let mut views = Vec::new();
    for name in names {
        views.extend(named(record, name)?);
    }
    let chart =
        |view: &View| course::whole(&view.timeline).with_context(|| format!("{}: no device was watched", view.title));
    match &views[..] {
        [one] => {
            let chart = chart(one)?;
            Ok(sheet(Size::Wide.width(), &[(one, 0.0, Size::Wide, &chart)]))
        }
        [left, right] => {
            let (mut one, mut other) = (chart(left)?, chart(right)?);
            one.alike(&mut other);
            let half = Size::Half.width();
            let places = [(left, 0.0, Size::Half, &one), (right, half + APART, Size::Half, &other)];
            Ok(sheet(half * 2.0 + APART, &places))
        }
        _ => bail!("name one or two charts: {} were named", views.len()),
    }
}

fn named(record: &Record, name: &str) -> Result<Vec<View>> {
    let (scenario, act) = match name.split_once('/') {
        Some((scenario, act)) => (scenario, Some(act.parse::<usize>().context("an act is named by its number")?)),
        None => (name, None),
    };
    let outcome = record.scenarios.iter().find(|outcome| outcome.name == scenario);
    let outcome = outcome.with_context(|| format!("the record has no scenario {scenario}"))?;
    let timeline = &outcome.timeline;
    let acts = timeline.acts.len();
    let act_view = |number: usize| {
        let index = number.checked_sub(1)?;
        Some(View { title: timeline.acts.get(index)?.step.clone(), timeline: timeline.act(index)? })
    };
    let views: Vec<_> = match act {
        Some(number) => act_view(number).into_iter().collect(),
        None if acts == 2 => (1..=acts).filter_map(act_view).collect(),
        None => vec![View { title: outcome.story.clone(), timeline: timeline.clone() }],
    };
    ensure!(!views.is_empty(), "{scenario} has {acts} acts");
    Ok(views)
}

fn sheet(width: f64, places: &[(&View, f64, Size, &Chart)]) -> String {
    let most = places.iter().map(|(_, _, size, chart)| chart.height(*size)).fold(0.0, f64::max);
    let height = HEAD + most + 8.0;
    let titles: Vec<_> = places.iter().map(|(view, ..)| view.title.as_str()).collect();
    let mut svg = Svg::new("picture", width, height, &titles.join("; "), "What the device held over time.");
    svg.rect("paper", (0.0, 0.0), (width, height), "");
    for (index, (view, left, size, chart)) in places.iter().enumerate() {
        svg.text("head", (*left + 4.0, 20.0), Anchor::Start, &view.title);
        svg.place((*left, HEAD), &chart.sketch(*size, &format!("picture-{index}")));
    }
    svg.file(STYLE)
}
