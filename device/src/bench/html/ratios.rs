//! Chart 2: effective ratio by codec and block size, with and without same-filled blocks.

use super::view::{View, name, ratio};
use cxl_cram_kit::html::markup::{Anchor, Svg, series};
use cxl_cram_kit::html::plot::{Area, Size, at_sizes, plain, vertical_axis};
use cxl_cram_kit::html::scale::{Scale, round_up};
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// One bar.
#[derive(Clone, Debug)]
struct Bar {
    /// Which codec, for its colour and its place in the group.
    codec: usize,
    /// Ratio over all blocks.
    with: f64,
    /// Ratio over the blocks that are not same-filled, if there are any.
    without: Option<f64>,
    /// The tooltip.
    hover: String,
}

/// The bars of one block size.
#[derive(Clone, Debug)]
struct Group {
    /// The block size as people write it.
    name: String,
    /// At most one bar a codec, in the codecs' order.
    bars: Vec<Bar>,
}

/// The section.
pub(super) fn section(view: &View<'_>) -> Markup {
    let groups: Vec<_> = view
        .block_sizes
        .iter()
        .map(|size| Group {
            name: format_bytes(*size),
            bars: view
                .at_block_size(*size)
                .map(|r| Bar {
                    codec: view.codec(r),
                    with: r.effective_ratio,
                    without: r.effective_ratio_without_same_filled,
                    hover: format!(
                        "{}: effective ratio {}, {} without same-filled blocks",
                        name(r),
                        ratio(r.effective_ratio),
                        ratio(r.effective_ratio_without_same_filled)
                    ),
                })
                .collect(),
        })
        .collect();
    let description = groups.iter().flat_map(|g| &g.bars).map(|b| b.hover.as_str()).collect::<Vec<_>>().join("; ");
    let marks = [("pale", "pale: all blocks"), ("full", "full: without same-filled blocks"), ("rule", "no gain")];
    html! {
        section {
            h2 { "Ratio by codec and block size" }
            figure {
                (chart(&groups, view.codecs.len(), &description))
                (view.legend(&marks))
                figcaption {
                    "Effective ratio: logical bytes over the bytes that store them, slabs and map counted. Larger blocks \
                     compress better and cost more time a read."
                }
            }
        }
    }
}

fn chart(groups: &[Group], codecs: usize, description: &str) -> Markup {
    at_sizes("ratios", [Size::Wide, Size::Narrow], |size, id| draw(groups, codecs.max(1), description, size, id))
}

fn draw(groups: &[Group], codecs: usize, description: &str, size: Size, id: &str) -> Markup {
    let (width, height) = (size.width(), if size == Size::Wide { 340.0 } else { 280.0 });
    let area = Area { left: 40.0, right: width - 8.0, top: 30.0, bottom: height - 44.0 };
    let mut svg = Svg::new(id, width, height, "Effective ratio by codec and block size", description);
    let highest = groups.iter().flat_map(|g| &g.bars).map(|b| b.with).fold(1.0, f64::max);
    let y = Scale::linear(0.0, round_up(highest * 1.04, 5), area.up());
    vertical_axis(&mut svg, area, y, &y.ticks(5), plain, "effective ratio");

    let place = (area.right - area.left) / groups.len().max(1) as f64;
    let slot = (place * 0.86 / codecs as f64).min(72.0);
    for (i, group) in groups.iter().enumerate() {
        let middle = area.left + place * (i as f64 + 0.5);
        let first = middle - slot * codecs as f64 / 2.0;
        for bar in &group.bars {
            let colour = series(bar.codec);
            let x = first + slot * bar.codec as f64;
            let gap = (slot * 0.08).min(2.0);
            // Pale and wide behind, full and narrow in front: neither hides the other, whichever is the longer.
            let full = (slot - 2.0 * gap).max(0.5);
            let bars = [("pale ", 0.0, Some(bar.with)), ("", 0.25, bar.without)];
            for (class, inset, value) in bars {
                let Some(value) = value else { continue };
                let top = y.at(value);
                let at = (x + gap + full * inset, top);
                svg.rect(
                    &format!("bar {class}{colour}"),
                    at,
                    (full * (1.0 - 2.0 * inset), area.bottom - top),
                    &bar.hover,
                );
            }
            if slot >= 26.0 {
                let top = y.at(bar.with.max(bar.without.unwrap_or(0.0))) - 5.0;
                svg.text("", (x + slot / 2.0, top), Anchor::Middle, &ratio(bar.with));
            }
        }
        svg.text("", (middle, area.bottom + 18.0), Anchor::Middle, &group.name);
    }
    svg.line("bound", (area.left, y.at(1.0)), (area.right, y.at(1.0)));
    svg.line("axis", (area.left, area.bottom), (area.right, area.bottom));
    svg.text("soft", ((area.left + area.right) / 2.0, area.bottom + 36.0), Anchor::Middle, "block size");
    svg.finish()
}
