//! Chart 1: how the compressed sizes are spread. One panel a block size, one outline a codec.

use super::view::{View, share};
use crate::bench::report::CodecResult;
use cxl_cram_kit::html::markup::{Anchor, Svg, series};
use cxl_cram_kit::html::plot::{Area, Size, horizontal_axis, plain, vertical_axis};
use cxl_cram_kit::html::scale::{Scale, round_up};
use maud::{Markup, html};

/// Classes drawn as one column in a small panel: 32 columns are as many as it can show.
const GROUPED: usize = 2;

/// One codec's histogram.
#[derive(Clone, Debug)]
struct Outline {
    /// Which codec, for its colour.
    codec: usize,
    /// Blocks by class, see [`crate::bench::report::CodecResult::histogram`].
    classes: Vec<u64>,
}

/// All histograms of one block size.
#[derive(Clone, Debug)]
struct Panel {
    /// Bytes in a block.
    block: u64,
    /// One a codec.
    outlines: Vec<Outline>,
    /// The figures in words.
    description: String,
}

/// The section.
pub(super) fn section(view: &View<'_>) -> Markup {
    let panels: Vec<_> = view
        .block_sizes
        .iter()
        .map(|block| Panel {
            block: *block,
            outlines: view
                .at_block_size(*block)
                .map(|r| Outline { codec: view.codec(r), classes: r.histogram.clone() })
                .collect(),
            description: view.at_block_size(*block).map(in_words).collect::<Vec<_>>().join("; "),
        })
        .collect();
    html! {
        section {
            h2 { "How the compressed sizes are spread" }
            figure {
                (chart(&panels))
                (view.legend(&[]))
                figcaption {
                    "Share of blocks by the bytes they take compressed; same-filled blocks take none and are not counted. \
                     Dashed lines stand at quarters of the block; what does not shrink is stored raw and stands in the \
                     last column."
                }
            }
        }
    }
}

/// `lz4: half of the blocks take at most 1792 bytes, 3.1 % are raw`.
fn in_words(result: &CodecResult) -> String {
    let total = result.histogram.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    let mut seen = 0u64;
    let half = result.histogram.iter().position(|n| {
        seen = seen.saturating_add(*n);
        total > 0 && seen >= total.div_ceil(2)
    });
    let classes = result.histogram.len().max(1) as u64;
    let raw = share(result.raw_blocks, result.blocks);
    match half {
        Some(class) => {
            let bytes = (class as u64 + 1).saturating_mul(result.block_size) / classes;
            format!("{}: half of the blocks take at most {bytes} bytes, {raw} are raw", result.codec)
        }
        None => format!("{}: every block is same-filled", result.codec),
    }
}

/// All panels: two in a row on a wide page, one on a narrow one.
fn chart(panels: &[Panel]) -> Markup {
    let one = panels.len() == 1;
    html! {
        @for size in [if one { Size::Wide } else { Size::Half }, Size::Narrow] {
            .panels.one[one].(size.class()) {
                @for (i, panel) in panels.iter().enumerate() {
                    div { (draw(panel, size, &format!("sizes{i}-{}", size.class()))) }
                }
            }
        }
    }
}

/// Shares in per cent, `grouped` classes a column.
fn columns(classes: &[u64], grouped: usize) -> Vec<f64> {
    let total = classes.iter().map(|n| *n as f64).sum::<f64>().max(1.0);
    classes.chunks(grouped).map(|group| 100.0 * group.iter().map(|n| *n as f64).sum::<f64>() / total).collect()
}

fn draw(panel: &Panel, size: Size, id: &str) -> Markup {
    let (width, height) = (size.width(), if size == Size::Wide { 340.0 } else { 230.0 });
    let area = Area { left: 42.0, right: width - 20.0, top: 44.0, bottom: height - 44.0 };
    let block_name = cxl_cram_kit::size::format_bytes(panel.block);
    let title = format!("Compressed sizes of blocks of {block_name}");
    let mut svg = Svg::new(id, width, height, &title, &panel.description);

    let grouped = if size == Size::Wide { 1 } else { GROUPED };
    let shares: Vec<_> = panel.outlines.iter().map(|o| (o.codec, columns(&o.classes, grouped))).collect();
    let highest = shares.iter().flat_map(|(_, shares)| shares).copied().fold(1.0, f64::max);
    let y = Scale::linear(0.0, round_up(highest * 1.02, 4), area.up());
    let x = Scale::linear(0.0, panel.block.max(1) as f64, area.across());

    svg.text("head", (0.0, 14.0), Anchor::Start, &format!("{block_name} blocks"));
    vertical_axis(&mut svg, area, y, &y.ticks(4), |v| format!("{}%", plain(v)), "share of blocks");
    let parts = if size == Size::Narrow { 4 } else { 8 };
    let ticks: Vec<_> = (0..=parts).map(|i| panel.block as f64 * f64::from(i) / f64::from(parts)).collect();
    horizontal_axis(&mut svg, area, x, &ticks, plain, "compressed bytes");

    for quarter in 1..=4 {
        let at = x.at(panel.block as f64 * f64::from(quarter) / 4.0);
        svg.line("bound", (at, area.top), (at, area.bottom));
    }
    for (codec, columns) in &shares {
        let colour = series(*codec);
        let mut outline = vec![(area.left, area.bottom)];
        let column = panel.block as f64 / columns.len().max(1) as f64;
        for (i, share) in columns.iter().enumerate() {
            let (from, to) = (column * i as f64, column * (i + 1) as f64);
            outline.extend([(x.at(from), y.at(*share)), (x.at(to), y.at(*share))]);
        }
        outline.push((area.right, area.bottom));
        // More than a few areas on each other only turn grey.
        if shares.len() <= 3 {
            svg.path(&format!("area {colour}"), &outline);
        }
        svg.path(&format!("step {colour}"), &outline);
    }
    svg.finish()
}
