//! The course of a story: what a device held and did, as charts.

use cxl_cram_device::cxl::vectors;
use cxl_cram_kit::{
    html::plot::{Size, at_sizes, plain},
    size::format_bytes,
};
use maud::{Markup, html};

use super::chart::{Chart, Line, Panel};
use crate::record::timeline::{Mark, Sample, Timeline};

/// Pixels of the panel of occupancy.
const LARGE: f64 = 230.0;
/// Pixels of a panel of several series.
const MIDDLE: f64 = 120.0;
/// Pixels of any other panel, and of that of a device which held nothing.
const SMALL: f64 = 64.0;
/// Columns that answer to a pointer, at most.
const HOVERS: usize = 200;
/// A pause between samples longer than this, seconds, and this many times the usual one, is a gap.
const GAP: (f64, f64) = (1.0, 3.0);
/// What is behind the lines.
const SHADED: &str = "Red: between a low crossing and the high crossing that follows, the device is blocked.";

/// The charts and the steps. `id` is the scenario's in the page.
pub(super) fn section(timeline: &Timeline, id: &str) -> Markup {
    if let Some(acts) = acts(timeline, id) {
        return acts;
    }
    let figure = |index: usize, samples: &[Sample]| {
        let chart = chart(timeline, index, samples, span(timeline), "seconds since the device started");
        let drawing = at_sizes(&format!("{id}-d{index}"), [Size::Wide, Size::Narrow], |size, id| chart.draw(size, id));
        html! { figure { (drawing) (legend(samples)) } }
    };
    let sampled = timeline.devices.iter().enumerate().filter(|(_, samples)| samples.len() > 1);
    html! {
        @for (index, samples) in sampled {
            @if timeline.devices.len() > 1 { h3 { "Device " (index) } }
            (figure(index, samples))
        }
        (steps("Steps", &timeline.marks))
    }
}

/// The steps, numbered and timed as in the chart above them.
fn steps(title: &str, marks: &[Mark]) -> Markup {
    if marks.is_empty() {
        return Markup::default();
    }
    html! {
        h3 { (title) }
        ol.steps {
            @for mark in marks { li { span.soft { (format!("{:.1} s", seconds(mark.at_ms))) } " " (mark.step) } }
        }
    }
}

/// The charts of a story of two acts, side by side, each with its own steps.
fn acts(timeline: &Timeline, id: &str) -> Option<Markup> {
    let [left, right] = &timeline.acts[..] else { return None };
    let (one, other) = (timeline.act(0)?, timeline.act(1)?);
    let (mut first, mut second) = (whole(&one)?, whole(&other)?);
    first.alike(&mut second);
    let side = |act: &Mark, marks: &[Mark], chart: &Chart, side: &str| {
        let drawing = at_sizes(&format!("{id}-{side}"), [Size::Half, Size::Narrow], |size, id| chart.draw(size, id));
        html! { div { h3 { (act.step) } (drawing) (steps("Steps", marks)) } }
    };
    let before: Vec<_> = timeline.marks.iter().filter(|mark| mark.at_ms < left.at_ms).cloned().collect();
    Some(html! {
        (steps("Before", &before))
        figure {
            .panels { (side(left, &one.marks, &first, "left")) (side(right, &other.marks, &second, "right")) }
            figcaption { (SHADED) }
        }
    })
}

/// The chart of all of a timeline on its first device, for a drawing that stands by itself; none if it was not sampled.
pub(super) fn whole(timeline: &Timeline) -> Option<Chart> {
    let samples = timeline.devices.first().filter(|samples| samples.len() > 1)?;
    let span = (0.0, span(timeline).1);
    let mut chart = chart(timeline, 0, samples, span, "seconds");
    chart.name_lines();
    Some(chart)
}

fn chart(timeline: &Timeline, index: usize, samples: &[Sample], span: (f64, f64), axis: &'static str) -> Chart {
    let runs = runs(samples, span.0);
    let mut panels = vec![occupancy(&runs)];
    panels.extend(traffic(&runs));
    panels.extend(poison(&runs));
    panels.extend(signals(samples));
    if index == 0 {
        panels.extend(noted(timeline, span.0));
    }
    let every = samples.len().div_ceil(HOVERS);
    let seen = samples.iter().filter(|sample| seconds(sample.at_ms) >= span.0);
    let most = samples.iter().map(|sample| sample.used).max().unwrap_or(0);
    let physical = samples.iter().map(|sample| sample.physical).max().unwrap_or(0);
    Chart {
        title: format!("Device {index} over time"),
        description: format!("At most {} of {} used.", format_bytes(most), format_bytes(physical)),
        axis,
        span,
        marks: timeline.marks.iter().map(|mark| seconds(mark.at_ms)).collect(),
        panels,
        hovers: seen.step_by(every).map(|sample| (seconds(sample.at_ms), said(sample))).collect(),
    }
}

/// From shortly before the first step, which is when the guest has booted, to the end; the same for all devices.
fn span(timeline: &Timeline) -> (f64, f64) {
    let ends = timeline.devices.iter().filter_map(|samples| samples.last()).map(|sample| sample.at_ms);
    let end = seconds(ends.chain(timeline.marks.iter().map(|mark| mark.at_ms)).max().unwrap_or(0));
    let first = timeline.marks.first().map_or(0.0, |mark| seconds(mark.at_ms));
    ((first - (end - first) * 0.04).max(0.0), end)
}

/// Unbroken runs of samples, from the last before `from`.
fn runs(samples: &[Sample], from: f64) -> Vec<&[Sample]> {
    let before = samples.iter().take_while(|sample| seconds(sample.at_ms) < from).count();
    let samples = &samples[before.saturating_sub(1)..];
    let apart = |pair: &[Sample]| seconds(pair[1].at_ms.saturating_sub(pair[0].at_ms));
    let mut pauses: Vec<_> = samples.windows(2).map(apart).collect();
    pauses.sort_by(f64::total_cmp);
    let usual = pauses.get(pauses.len() / 2).copied().unwrap_or(0.0);
    let gap = GAP.0.max(GAP.1 * usual);
    samples.chunk_by(|one, next| seconds(next.at_ms.saturating_sub(one.at_ms)) <= gap).collect()
}

/// Used and physical media, the watermarks as levels of use, and the decompressed cache.
fn occupancy(runs: &[&[Sample]]) -> Panel {
    let most = runs.iter().copied().flatten().map(|sample| sample.physical.max(sample.used).max(sample.resident)).max();
    let (unit, name) = unit(most.unwrap_or(0));
    let line = |name: &str, classes, value: fn(&Sample) -> u64| Line {
        name: name.to_owned(),
        classes,
        runs: points(runs, |sample| value(sample) as f64 / unit),
    };
    Panel::Lines {
        title: name.to_owned(),
        height: if runs.iter().copied().flatten().any(moved) { LARGE } else { SMALL },
        lines: vec![
            line("resident", ("step s3", None), |sample| sample.resident),
            line("high mark", ("level s2", None), |sample| sample.physical.saturating_sub(sample.high_watermark)),
            line("low mark", ("level s1", None), |sample| sample.physical.saturating_sub(sample.low_watermark)),
            line("physical", ("limit", None), |sample| sample.physical),
            line("used", ("step s0", Some("area s0")), |sample| sample.used),
        ],
        shades: blocked(runs),
        at_least: 0.0,
        named: false,
        beside: Vec::new(),
    }
}

/// When the device was blocked: from a sample that says so to the first that does not.
fn blocked(runs: &[&[Sample]]) -> Vec<(f64, f64)> {
    let mut times: Vec<(f64, f64)> = Vec::new();
    for pair in runs.iter().flat_map(|run| run.windows(2)).filter(|pair| pair[0].blocked) {
        let (from, to) = (seconds(pair[0].at_ms), seconds(pair[1].at_ms));
        match times.last_mut() {
            Some(last) if last.1 >= from => last.1 = to,
            _ => times.push((from, to)),
        }
    }
    times
}

/// Pages a second; none when nothing moved.
fn traffic(runs: &[&[Sample]]) -> Option<Panel> {
    let rate = |name: &str, class, value: fn(&Sample) -> u64| {
        let between = |pair: &[Sample]| {
            let apart = seconds(pair[1].at_ms.saturating_sub(pair[0].at_ms)).max(0.001);
            (seconds(pair[1].at_ms), value(&pair[1]).saturating_sub(value(&pair[0])) as f64 / apart / 1000.0)
        };
        let runs = runs.iter().map(|run| run.windows(2).map(between).collect()).collect();
        Line { name: name.to_owned(), classes: (class, None), runs }
    };
    let lines = vec![
        rate("written back", "step s6", |sample| sample.written_back),
        rate("evicted", "step s5", |sample| sample.evicted),
        rate("faulted", "step s4", |sample| sample.faults),
    ];
    let title = "1000 pages a second".to_owned();
    runs.iter().copied().flatten().any(moved).then_some(Panel::Lines {
        title,
        height: SMALL,
        lines,
        shades: Vec::new(),
        at_least: 0.0,
        named: false,
        beside: Vec::new(),
    })
}

/// Poisoned bytes; none when there never were.
fn poison(runs: &[&[Sample]]) -> Option<Panel> {
    let most = runs.iter().copied().flatten().map(|sample| sample.poisoned).max().filter(|most| *most > 0)?;
    let (unit, name) = unit(most);
    let line = Line {
        name: "poisoned".to_owned(),
        classes: ("step s7", Some("area s7")),
        runs: points(runs, |sample| sample.poisoned as f64 / unit),
    };
    Some(Panel::Lines {
        title: format!("lost, {name}"),
        height: SMALL,
        lines: vec![line],
        shades: Vec::new(),
        at_least: 0.0,
        named: false,
        beside: Vec::new(),
    })
}

/// Crossings and interrupts; none when there were none.
fn signals(samples: &[Sample]) -> Option<Panel> {
    let grown = |count: &dyn Fn(&Sample) -> u64| -> Vec<f64> {
        let first = samples.first().filter(|sample| count(sample) > 0).map(|sample| seconds(sample.at_ms));
        let later = samples.windows(2).filter(|pair| count(&pair[1]) > count(&pair[0]));
        first.into_iter().chain(later.map(|pair| seconds(pair[1].at_ms))).collect()
    };
    let mut rows = vec![
        ("low".to_owned(), grown(&|sample| sample.low_crossings)),
        ("high".to_owned(), grown(&|sample| sample.high_crossings)),
    ];
    rows.retain(|(_, moments)| !moments.is_empty());
    let mut vectors: Vec<u32> = samples.iter().flat_map(|sample| sample.interrupts.keys().copied()).collect();
    vectors.sort_unstable();
    vectors.dedup();
    for vector in vectors {
        let moments = grown(&|sample| sample.interrupts.get(&vector).copied().unwrap_or(0));
        rows.push((vector_name(vector), moments));
    }
    let title = "crossings of the watermarks; interrupts".to_owned();
    (!rows.is_empty()).then_some(Panel::Ticks { title, rows })
}

/// Who signals on a vector.
fn vector_name(vector: u32) -> String {
    let name = match u16::try_from(vector) {
        Ok(vectors::DOE) => "DOE",
        Ok(vectors::EVENT_INFORMATION) => "info",
        Ok(vectors::EVENT_WARNING) => "warning",
        Ok(vectors::EVENT_FAILURE) => "failure",
        Ok(vectors::EVENT_FATAL) => "fatal",
        Ok(vectors::MAILBOX) => "mailbox",
        Ok(vectors::LOW_THRESHOLD) => "lthresh",
        Ok(vectors::HIGH_THRESHOLD) => "hthresh",
        _ => return format!("MSI-X {vector}"),
    };
    name.to_owned()
}

/// What the story noted: a panel a series, or one for all series whose names begin alike up to a colon.
fn noted(timeline: &Timeline, from: f64) -> Vec<Panel> {
    // In the order of the palette, and none of the two colours that say something of the medium.
    const COLOURS: [&str; 6] = ["step s0", "step s1", "step s2", "step s3", "step s5", "step s4"];
    let mut panels: Vec<(&str, Vec<Line>)> = Vec::new();
    for (name, series) in &timeline.series {
        let (title, line) = name.split_once(": ").unwrap_or((name, ""));
        let run = series.iter().map(|(at, value)| (seconds(*at), *value)).filter(|(at, _)| *at >= from).collect();
        let mut line = Line { name: line.to_owned(), classes: (COLOURS[0], None), runs: vec![run] };
        match panels.iter_mut().find(|(there, _)| *there == title) {
            Some((_, lines)) => {
                line.classes.0 = COLOURS[lines.len() % COLOURS.len()];
                lines.push(line);
            }
            None => panels.push((title, vec![line])),
        }
    }
    let panel = |(title, mut lines): (&str, Vec<Line>)| {
        let several = lines.len() > 1;
        if let [line] = &mut lines[..] {
            line.classes.1 = Some("area s0");
        }
        let height = if several { MIDDLE } else { SMALL };
        Panel::Lines {
            title: title.to_owned(),
            height,
            lines,
            shades: Vec::new(),
            at_least: 0.0,
            named: several,
            beside: Vec::new(),
        }
    };
    panels.into_iter().map(panel).collect()
}

fn points(runs: &[&[Sample]], value: impl Fn(&Sample) -> f64) -> Vec<Vec<(f64, f64)>> {
    runs.iter().map(|run| run.iter().map(|sample| (seconds(sample.at_ms), value(sample))).collect()).collect()
}

/// What a pointer at rest says of a sample.
fn said(sample: &Sample) -> String {
    let mut text = format!(
        "{} s\nused {} of {}, metadata {}\nresident {}\n{} faults, {} evicted, {} written back",
        plain(seconds(sample.at_ms)),
        format_bytes(sample.used),
        format_bytes(sample.physical),
        format_bytes(sample.metadata),
        format_bytes(sample.resident),
        sample.faults,
        sample.evicted,
        sample.written_back,
    );
    if sample.poisoned > 0 {
        text.push_str(&format!("\npoisoned {}", format_bytes(sample.poisoned)));
    }
    for (vector, count) in &sample.interrupts {
        text.push_str(&format!("\nMSI-X {vector} ({}): {count}", vector_name(*vector)));
    }
    if sample.blocked {
        text.push_str("\nblocked");
    }
    text
}

/// The lines there are.
fn legend(samples: &[Sample]) -> Markup {
    let ever = |holds: fn(&Sample) -> bool| samples.iter().any(holds);
    let entries = [
        ("s0", "used", true),
        ("limit", "physical", true),
        ("level s1", "low watermark", true),
        ("level s2", "high watermark", true),
        ("s3", "resident (decompressed)", true),
        ("s4", "faulted", ever(moved)),
        ("s5", "evicted", ever(moved)),
        ("s6", "written back", ever(moved)),
        ("shade", "blocked", ever(|sample| sample.blocked)),
    ];
    html! {
        ul.legend {
            @for (class, name, _) in entries.iter().filter(|(.., there)| *there) {
                li { span.swatch.(class) {} (name) }
            }
        }
    }
}

/// Whether a page has gone in or out.
fn moved(sample: &Sample) -> bool {
    sample.faults > 0 || sample.evicted > 0 || sample.written_back > 0
}

/// The unit an axis that ends at `most` bytes is best read in.
fn unit(most: u64) -> (f64, &'static str) {
    match most {
        0..0x40_0000 => (1024.0, "KiB"),
        0x40_0000..0x1_0000_0000 => (1024.0 * 1024.0, "MiB"),
        _ => (1024.0 * 1024.0 * 1024.0, "GiB"),
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
