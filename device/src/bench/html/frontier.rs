//! Chart 3: speed against ratio, and the line of what no other choice beats in both.

use super::labels;
use super::view::{View, name, ratio, speed};
use cxl_cram_kit::html::markup::{Svg, series};
use cxl_cram_kit::html::plot::{Area, Size, at_sizes, horizontal_axis, plain, vertical_axis};
use cxl_cram_kit::html::scale::{Scale, round_up};
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// One codec at one block size.
#[derive(Clone, Debug)]
struct Choice {
    /// The label: short.
    label: String,
    /// The tooltip: the whole name.
    hover: String,
    /// Which codec, for its colour.
    codec: usize,
    /// MiB compressed a second on one core.
    speed: f64,
    /// Logical bytes over footprint.
    ratio: f64,
}

/// The section; empty when no block was compressed, a sentence when there is nothing to compare.
pub(super) fn section(view: &View<'_>) -> Markup {
    let mut results: Vec<_> = view.report.results.iter().collect();
    results.sort_by_key(|r| (view.codec(r), r.block_size));
    let choices: Vec<_> = results
        .into_iter()
        .filter_map(|r| {
            let throughput = r.throughput.compress_per_core_mib_s.filter(|v| v.is_finite())?;
            let (codec, block) = (view.codec(r), format_bytes(r.block_size));
            Some(Choice {
                // With one codec the colour is redundant, with one block size the name is enough.
                label: if view.block_sizes.len() > 1 { block } else { r.codec.clone() },
                hover: format!("{} ({} MiB/s, ratio {})", name(r), speed(Some(throughput)), ratio(r.effective_ratio)),
                codec,
                speed: throughput,
                ratio: r.effective_ratio,
            })
        })
        .collect();
    if choices.is_empty() {
        return Markup::default();
    }
    html! {
        section {
            h2 { "Speed against ratio" }
            @if let [only] = choices.as_slice() {
                p {
                    "There is one choice: " (only.hover) ". Ask for more with " code { "--codec" } " and "
                    code { "--block-size" } " to compare."
                }
            } @else {
                (figure(view, &choices))
            }
        }
    }
}

fn figure(view: &View<'_>, choices: &[Choice]) -> Markup {
    let best = choices.iter().zip(pareto(choices)).filter(|(_, best)| *best).map(|(c, _)| c.hover.as_str());
    let description = format!("On the frontier: {}.", best.collect::<Vec<_>>().join("; "));
    html! {
        figure {
            (chart(choices, &description))
            (view.legend(&[("line", "frontier")]))
            figcaption {
                "Up and right is better. Filled points are on the frontier: no other choice is both faster and smaller. \
                 Speed is over blocks that are not same-filled. " (description)
            }
        }
    }
}

/// For each choice, whether none other is at least as good in both and better in one.
fn pareto(choices: &[Choice]) -> Vec<bool> {
    choices
        .iter()
        .map(|a| {
            !choices
                .iter()
                .any(|b| b.speed >= a.speed && b.ratio >= a.ratio && (b.speed > a.speed || b.ratio > a.ratio))
        })
        .collect()
}

fn chart(choices: &[Choice], description: &str) -> Markup {
    at_sizes("frontier", [Size::Wide, Size::Narrow], |size, id| draw(choices, description, size, id))
}

fn draw(choices: &[Choice], description: &str, size: Size, id: &str) -> Markup {
    let (width, height) = (size.width(), if size == Size::Wide { 430.0 } else { 330.0 });
    let area = Area { left: 44.0, right: width - 14.0, top: 28.0, bottom: height - 44.0 };
    let mut svg = Svg::new(id, width, height, "Compression speed against effective ratio", description);

    let (slowest, fastest) = extent(choices.iter().map(|c| c.speed));
    let x = if slowest > 0.0 && fastest / slowest > 8.0 {
        Scale::log(slowest / 1.5, fastest * 1.5, area.across())
    } else {
        Scale::linear(0.0, round_up(fastest * 1.12, 5), area.across())
    };
    let (lowest, highest) = extent(choices.iter().map(|c| c.ratio));
    let pad = ((highest - lowest) * 0.12).max(highest * 0.05);
    let y = Scale::linear((lowest - pad).max(0.0), highest + pad, area.up());

    vertical_axis(&mut svg, area, y, &y.ticks(6), plain, "effective ratio");
    horizontal_axis(&mut svg, area, x, &x.ticks(size.ticks()), plain, "MiB compressed a second, one core");

    let at = |c: &Choice| (x.at(c.speed), y.at(c.ratio));
    for codec in 0..=choices.iter().map(|c| c.codec).max().unwrap_or(0) {
        let chain: Vec<_> = choices.iter().filter(|c| c.codec == codec).map(at).collect();
        svg.path(&format!("chain {}", series(codec)), &chain);
    }
    let best = pareto(choices);
    let mut front: Vec<_> = choices.iter().zip(&best).filter(|(_, best)| **best).map(|(c, _)| at(c)).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    svg.path("pareto", &front);
    for (choice, best) in choices.iter().zip(&best) {
        let class = format!("point {}{}", series(choice.codec), if *best { "" } else { " off" });
        svg.dot(&class, at(choice), if *best { 6.0 } else { 4.5 }, &choice.hover);
    }

    // Points of the frontier are labelled first: they are the ones a reader chooses from.
    let mut order: Vec<_> = choices.iter().zip(&best).collect();
    order.sort_by_key(|(_, best)| !**best);
    let wanted: Vec<_> = order.iter().map(|(c, _)| (c.label.clone(), at(c))).collect();
    for label in labels::place(&wanted, &front, area) {
        let (text, codec) = (&wanted[label.index].0, order[label.index].0.codec);
        svg.text(&format!("in {}", series(codec)), label.at, label.anchor, text);
    }
    svg.finish()
}

fn extent(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let low = finite.clone().fold(f64::INFINITY, f64::min);
    if low.is_finite() { (low, finite.fold(low, f64::max)) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(speed: f64, ratio: f64) -> Choice {
        Choice { label: String::new(), hover: String::new(), codec: 0, speed, ratio }
    }

    #[test]
    fn only_what_nothing_else_beats_in_both_is_on_the_frontier() {
        let choices = [choice(500.0, 2.0), choice(200.0, 3.0), choice(190.0, 2.9), choice(500.0, 1.9)];
        assert_eq!(pareto(&choices), [true, true, false, false]);
    }

    #[test]
    fn equal_choices_are_both_on_the_frontier() {
        assert_eq!(pareto(&[choice(1.0, 1.0), choice(1.0, 1.0)]), [true, true]);
    }
}
