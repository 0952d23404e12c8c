//! Chart 4: the planner's curve, from what is promised to how likely a window overflows it.

use super::view::{View, count, counted, duration, percent, ratio};
use crate::bench::report::Plan;
use cxl_cram_kit::html::markup::{Anchor, Svg, text_width};
use cxl_cram_kit::html::plot::{Area, Size, at_sizes, horizontal_axis, plain, vertical_axis};
use cxl_cram_kit::html::scale::Scale;
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// What the chart shows.
#[derive(Clone, Debug)]
struct Curve {
    /// Overcommit, and the probability that a window overflows.
    points: Vec<(f64, f64)>,
    /// The overcommit that was chosen.
    chosen: f64,
    /// The probability that was asked for.
    odds: f64,
    /// The same in words, as `1 in 1,000,000`.
    odds_words: String,
}

/// The section: the curve, the figures it leads to and what they rest on; or why there is none.
pub(super) fn section(view: &View<'_>) -> Markup {
    html! {
        section {
            h2 { "What a device could promise" }
            @if let Some(plan) = &view.report.planner {
                (planned(plan))
            } @else {
                p { "There is no plan" @if let Some(why) = &view.report.no_plan { ": " (why) } "." }
            }
        }
    }
}

fn planned(plan: &Plan) -> Markup {
    let odds_words = odds_words(plan.odds);
    let sentence = format!(
        "A device with {} of media can promise {} ({}x of the media above the low watermark), so that a window of {} MiB \
         overflows its share with a probability of {odds_words}.",
        format_bytes(plan.physical),
        format_bytes(plan.capacity),
        ratio(plan.overcommit),
        count(plan.window_mib)
    );
    let curve = Curve {
        points: plan.curve.iter().map(|p| (p.overcommit, p.probability_of_overflow)).collect(),
        chosen: plan.overcommit,
        odds: plan.odds,
        odds_words,
    };
    html! {
        p { (sentence) }
        figure {
            (chart(&curve, &sentence))
            figcaption {
                "Probability that a window of " (count(plan.window_mib)) " MiB takes more media than its share, by how \
                 much is promised for each byte of media. " (plan.codec) ", blocks of " (format_bytes(plan.block_size)) "."
            }
        }
        (figures(plan))
        @if !plan.assumptions.is_empty() {
            h3 { "Assumptions" }
            ul { @for assumption in &plan.assumptions { li { (assumption) } } }
        }
    }
}

/// Watermarks and what they follow from.
fn figures(plan: &Plan) -> Markup {
    let of_media = |bytes: u64| {
        let share = percent(bytes as f64 / plan.physical.max(1) as f64);
        format!("{} free ({share} of the media)", format_bytes(bytes))
    };
    let rows = [
        ("Low watermark", of_media(plan.low_watermark)),
        ("High watermark", of_media(plan.high_watermark)),
        (
            "Demotion",
            format!("{:.0} MiB/s until {} after the low crossing", plan.write_mib_s, duration(plan.reaction_ms)),
        ),
        (
            "Reclaim",
            format!("{:.0} MiB/s, so at least {} from low to high", plan.reclaim_mib_s, duration(plan.hysteresis_ms)),
        ),
        (
            "Footprint",
            format!(
                "{:.3} bytes a logical byte in the mean; a window deviates by {:.4} ({} of pages)",
                plan.mean_footprint,
                plan.window_deviation,
                counted(plan.runs, "run")
            ),
        ),
    ];
    html! {
        dl { @for (term, text) in rows { dt { (term) } dd { (text) } } }
        pre { "cxl-cram-device serve --socket PATH " (plan.serve_flags().join(" ")) }
    }
}

/// `1 in 1,000,000`.
fn odds_words(odds: f64) -> String {
    let one_in = (1.0 / odds).round();
    if one_in.is_finite() && (1.0..=1e15).contains(&one_in) {
        format!("1 in {}", count(one_in as u64))
    } else {
        format!("{odds:e}")
    }
}

fn chart(curve: &Curve, description: &str) -> Markup {
    at_sizes("planner", [Size::Wide, Size::Narrow], |size, id| draw(curve, description, size, id))
}

fn draw(curve: &Curve, description: &str, size: Size, id: &str) -> Markup {
    let (width, height) = (size.width(), if size == Size::Wide { 380.0 } else { 320.0 });
    let area = Area { left: 52.0, right: width - 16.0, top: 30.0, bottom: height - 44.0 };
    let mut svg =
        Svg::new(id, width, height, "Overcommit against the probability that a window overflows", description);

    // Far below the requested odds the curve is of no use to a reader: two more decades are enough.
    let odds = if curve.odds > 0.0 { curve.odds } else { 1e-6 };
    let floor = 10f64.powf((odds.log10() - 2.0).floor());
    let y = Scale::log(floor, 1.0, area.up());
    let points = worth_drawing(&curve.points);
    let xs = points.iter().map(|p| p.0).chain([curve.chosen]).filter(|x| x.is_finite());
    let low = xs.clone().fold(f64::INFINITY, f64::min);
    let high = xs.fold(f64::NEG_INFINITY, f64::max);
    let pad = ((high - low) * 0.04).max(0.02);
    let x = Scale::linear(low - pad, high + pad, area.across());

    let percent = |p: f64| if p > 0.999 { "1".to_owned() } else { power_of_ten(p) };
    vertical_axis(&mut svg, area, y, &y.ticks(8), percent, "probability that a window overflows");
    let title = if size == Size::Narrow { "overcommit" } else { "overcommit: bytes promised for a byte of media" };
    horizontal_axis(&mut svg, area, x, &x.ticks(size.ticks()), |v| format!("{}x", plain(v)), title);

    svg.path("curve", &cut_at(floor, &points).iter().map(|p| (x.at(p.0), y.at(p.1))).collect::<Vec<_>>());

    let chosen = (x.at(curve.chosen), y.at(odds));
    svg.line("markline", (area.left, chosen.1), (area.right, chosen.1));
    svg.line("markline", (chosen.0, area.top), (chosen.0, area.bottom));
    let said = format!("{}x promised", ratio(curve.chosen));
    let right = chosen.0 + 10.0 + text_width(&said) < area.right;
    let (anchor, dx) = if right { (Anchor::Start, 10.0) } else { (Anchor::End, -10.0) };
    // The curve only rises: below its point, to the right, is room.
    svg.text("mark", (chosen.0 + dx, chosen.1 + 18.0), anchor, &said);
    let wording =
        if size == Size::Narrow { curve.odds_words.clone() } else { format!("odds asked for: {}", curve.odds_words) };
    // Opposite to where the curve climbs through the line.
    let left_room = chosen.0 - area.left > text_width(&wording) + 12.0;
    let (at, anchor) = if left_room { (area.left + 6.0, Anchor::Start) } else { (area.right - 6.0, Anchor::End) };
    svg.text("mark", (at, chosen.1 - 7.0), anchor, &wording);
    svg.dot("chosen", chosen, 6.0, &said);
    svg.finish()
}

/// The points in order, up to the first where nine windows in ten overflow: past it the curve is flat.
fn worth_drawing(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some(certain) = points.iter().position(|p| p.1 > 0.9) {
        points.truncate(certain + 1);
    }
    points
}

/// The part of a rising curve above `floor`, from where it crosses it on a logarithmic scale.
fn cut_at(floor: f64, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let above = points.iter().position(|p| p.1 > floor).unwrap_or(points.len());
    let crossing = match (above.checked_sub(1).and_then(|i| points.get(i)), points.get(above)) {
        (Some(below), Some(next)) if below.1 > 0.0 => {
            let share = (floor / below.1).ln() / (next.1 / below.1).ln();
            Some((below.0 + share * (next.0 - below.0), floor))
        }
        _ => None,
    };
    crossing.into_iter().chain(points.iter().skip(above).copied()).collect()
}

/// `10⁻⁶`, for the powers of ten that label a logarithmic axis.
fn power_of_ten(value: f64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let power = value.log10().round() as i32;
    let digits = power.unsigned_abs().to_string();
    let digits = digits.chars().filter_map(|d| d.to_digit(10)).filter_map(|d| DIGITS.get(d as usize));
    format!("10{}{}", if power < 0 { "⁻" } else { "" }, digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_starts_where_it_crosses_the_floor() {
        let cut = cut_at(1e-8, &[(1.0, 1e-12), (1.2, 1e-10), (1.4, 1e-6), (1.6, 1.0)]);
        assert_eq!(cut.len(), 3);
        assert!((cut[0].0 - 1.3).abs() < 1e-9 && cut[0].1 == 1e-8, "{cut:?}");
        assert_eq!(cut_at(1e-8, &[(1.0, 0.0), (1.2, 0.5)]), [(1.2, 0.5)]);
        assert_eq!(cut_at(1e-8, &[(1.0, 0.0)]), []);
    }

    #[test]
    fn powers_of_ten_are_written_with_raised_digits() {
        assert_eq!(power_of_ten(1e-6), "10⁻⁶");
        assert_eq!(power_of_ten(1e-12), "10⁻¹²");
        assert_eq!(power_of_ten(0.1), "10⁻¹");
    }
}
