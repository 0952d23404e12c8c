//! The table of all results.

use super::view::{View, count, known, micros, percent, ratio, share, speed};
use crate::bench::report::{BlockTime, CodecResult};
use crate::html::markup::{escape, series};
use crate::size::format_bytes;

/// The section, with the table in a box that scrolls by itself.
pub(super) fn section(view: &View<'_>) -> String {
    let of_raw = view.report.results.iter().find_map(|r| r.throughput.engine_over_raw);
    let of_raw = of_raw.filter(|v| v.is_finite()).map_or_else(String::new, |v| {
        format!(" The bench as a whole reached {} of a bare loop over the same codecs on the same pages.", percent(v))
    });
    let rows: String = view.report.results.iter().map(|r| row(view, r)).collect();
    format!(
        "<section>\n<h2 id=\"all\">All results</h2>\n\
         <p class=\"soft\">Ratios are logical bytes over bytes taken. Data counts payload only; effective counts slabs, map \
         and back-pointers too. Times are for one block; throughput is MiB of logical data a second, on one core while all \
         work.{of_raw}</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"all\">\n<table>\n<thead>\n<tr>\
         <th scope=\"col\" rowspan=\"2\">codec</th><th scope=\"col\" rowspan=\"2\">block</th>\
         <th scope=\"col\" rowspan=\"2\">blocks</th><th scope=\"col\" rowspan=\"2\">same-<br/>filled</th>\
         <th scope=\"col\" rowspan=\"2\">raw</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">data ratio</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">effective ratio</th>\
         <th scope=\"col\" rowspan=\"2\">packing</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">compress µs</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">decompress µs</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">compress MiB/s</th>\
         <th class=\"group\" scope=\"colgroup\" colspan=\"2\">decompress MiB/s</th></tr>\n<tr>\
         <th scope=\"col\">all</th><th scope=\"col\">no same</th><th scope=\"col\">all</th><th scope=\"col\">no same</th>\
         <th scope=\"col\">median</th><th scope=\"col\">p99</th><th scope=\"col\">median</th><th scope=\"col\">p99</th>\
         <th scope=\"col\">core</th><th scope=\"col\">all</th><th scope=\"col\">core</th><th scope=\"col\">all</th>\
         </tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n</section>\n"
    )
}

fn row(view: &View<'_>, r: &CodecResult) -> String {
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
    let cells: String = cells.iter().map(|c| format!("<td>{}</td>", escape(c))).collect();
    let colour = series(view.codec(r));
    format!("<tr><th scope=\"row\"><span class=\"swatch {colour}\"></span>{}</th>{cells}</tr>\n", escape(&r.codec))
}
