//! The table of all results.

use super::view::{View, count, known, micros, percent, ratio, share, speed};
use crate::bench::report::{BlockTime, CodecResult};
use cxl_cram_kit::html::markup::series;
use cxl_cram_kit::size::format_bytes;
use maud::{Markup, html};

/// The section, with the table in a box that scrolls by itself.
pub(super) fn section(view: &View<'_>) -> Markup {
    let of_raw = view.report.results.iter().find_map(|r| r.throughput.engine_over_raw).filter(|v| v.is_finite());
    html! {
        section {
            h2 #all { "All results" }
            p.soft {
                "Ratios are logical bytes over bytes taken. Data counts payload only; effective counts slabs, map and \
                 back-pointers too. Times are for one block; throughput is MiB of logical data a second, on one core \
                 while all work."
                @if let Some(share) = of_raw {
                    " The bench as a whole reached " (percent(share)) " of a bare loop over the same codecs on the same \
                     pages."
                }
            }
            .scroll tabindex="0" role="region" aria-labelledby="all" {
                table {
                    thead { (heads()) }
                    tbody { @for result in &view.report.results { (row(view, result)) } }
                }
            }
        }
    }
}

/// The two rows that name the columns.
fn heads() -> Markup {
    let single = |name: &str| html! { th scope="col" rowspan="2" { (name) } };
    let group = |name: &str| html! { th.group scope="colgroup" colspan="2" { (name) } };
    let parts = ["all", "no same", "all", "no same", "median", "p99", "median", "p99", "core", "all", "core", "all"];
    html! {
        tr {
            (single("codec")) (single("block")) (single("blocks"))
            th scope="col" rowspan="2" { "same-" br; "filled" }
            (single("raw"))
            (group("data ratio")) (group("effective ratio"))
            (single("packing"))
            (group("compress µs")) (group("decompress µs")) (group("compress MiB/s")) (group("decompress MiB/s"))
        }
        tr { @for part in parts { th scope="col" { (part) } } }
    }
}

fn row(view: &View<'_>, r: &CodecResult) -> Markup {
    let time = |t: &Option<BlockTime>, pick: fn(&BlockTime) -> u64| {
        t.as_ref().map_or_else(|| "–".to_owned(), |t| micros(pick(t)))
    };
    let speeds = &r.throughput;
    let cells = [
        format_bytes(r.block_size),
        count(r.blocks),
        share(r.same_filled_blocks, r.blocks),
        share(r.raw_blocks, r.blocks),
        ratio(r.data_ratio),
        ratio(r.data_ratio_without_same_filled),
        ratio(r.effective_ratio),
        ratio(r.effective_ratio_without_same_filled),
        known(r.packing, percent),
        time(&r.compress, |t| t.median_ns),
        time(&r.compress, |t| t.p99_ns),
        time(&r.decompress, |t| t.median_ns),
        time(&r.decompress, |t| t.p99_ns),
        speed(speeds.compress_per_core_mib_s),
        speed(speeds.compress_all_cores_mib_s),
        speed(speeds.decompress_per_core_mib_s),
        speed(speeds.decompress_all_cores_mib_s),
    ];
    html! {
        tr {
            th scope="row" { span.swatch.(series(view.codec(r))) {} (r.codec) }
            @for cell in cells { td { (cell) } }
        }
    }
}
