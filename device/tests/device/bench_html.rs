//! The page of the bench: what it must hold, and what it must never hold.

use cxl_cram_device::bench::html::page;
use cxl_cram_device::bench::report::{
    BlockTime, CodecResult, Compressed, CurvePoint, Machine, Plan, Report, SameFilled, Sample, Source, Throughput,
};

fn result(codec: &str, block_size: u64) -> CodecResult {
    let blocks = (64 << 20) / block_size;
    CodecResult {
        codec: codec.to_owned(),
        block_size,
        blocks,
        same_filled_blocks: blocks / 10,
        raw_blocks: blocks / 20,
        data_bytes: 28 << 20,
        footprint_bytes: 29 << 20,
        data_ratio: Some(64.0 / 28.0),
        data_ratio_without_same_filled: Some(57.6 / 28.0),
        effective_ratio: 64.0 / 29.0,
        effective_ratio_without_same_filled: Some(57.6 / 29.0),
        packing: Some(28.0 / 29.0),
        store_check: None,
        histogram: (0..64).map(|i| 100 + 7 * i % 13).collect(),
        compress: Some(BlockTime { median_ns: 8600, p99_ns: 14_200 }),
        decompress: Some(BlockTime { median_ns: 1800, p99_ns: 3100 }),
        throughput: Throughput {
            // Off the block size and the codec, so that points differ.
            compress_per_core_mib_s: Some(300.0 + block_size as f64 / 256.0 + codec.len() as f64 * 20.0),
            compress_all_cores_mib_s: Some(900.0),
            decompress_per_core_mib_s: Some(2100.0),
            decompress_all_cores_mib_s: Some(4000.0),
            engine_over_raw: None,
        },
    }
}

fn plan() -> Plan {
    Plan {
        codec: "lz4".into(),
        block_size: 4096,
        physical: 1 << 38,
        window_mib: 256,
        odds: 1e-6,
        assumptions: vec!["Windows are alike.".into()],
        curve: (0..40)
            .map(|i| CurvePoint {
                overcommit: 1.5 + f64::from(i) * 0.02,
                probability_of_overflow: 10f64.powf(f64::from(i - 39) / 3.0),
            })
            .collect(),
        capacity: 400 << 30,
        overcommit: 1.92,
        runs: 512,
        mean_footprint: 0.45,
        window_deviation: 0.02,
        write_mib_s: 1000.0,
        reclaim_mib_s: 500.0,
        reaction_ms: 1000,
        hysteresis_ms: 5000,
        low_watermark: 5 << 30,
        high_watermark: 8 << 30,
    }
}

fn report(codecs: &[&str], block_sizes: &[u64]) -> Report {
    Report {
        version: "1.2.3".into(),
        source: Source {
            what: "guest.elf".into(),
            bytes_found: 64 << 20,
            bytes_measured: 64 << 20,
            pages: 16_384,
            parts: 2,
            skipped: 0,
            holes_bytes: 0,
            compressed: Vec::new(),
            sampled: None,
            interrupted: false,
            seconds: 3.2,
        },
        same_filled: SameFilled { zero: 1500, other: 138 },
        machine: Machine { cpus: 4, threads: 4 },
        results: codecs.iter().flat_map(|c| block_sizes.iter().map(|b| result(c, *b))).collect(),
        planner: Some(plan()),
        no_plan: None,
        failures: Vec::new(),
    }
}

fn full() -> Report {
    report(&["lz4", "zstd:1", "zstd:3"], &[1024, 2048, 4096, 8192, 16_384])
}

/// What a run can also end in: one codec, no plan, no blocks, figures that are missing or absurd.
fn odd_reports() -> Vec<(&'static str, Report)> {
    let mut unplanned = full();
    unplanned.planner = None;

    let mut same_filled = report(&["lz4"], &[4096]);
    let all = &mut same_filled.results[0];
    all.same_filled_blocks = all.blocks;
    (all.raw_blocks, all.data_bytes, all.histogram) = (0, 0, vec![0; 64]);
    (all.data_ratio, all.data_ratio_without_same_filled, all.effective_ratio_without_same_filled) = (None, None, None);
    (all.packing, all.compress, all.decompress, all.throughput) = (None, None, None, Throughput::default());

    let mut nothing = full();
    nothing.results.clear();
    nothing.source.pages = 0;
    nothing.planner = None;

    let mut absurd = full();
    for (i, result) in absurd.results.iter_mut().enumerate() {
        result.effective_ratio = [f64::NAN, f64::INFINITY, 0.0, -1.0, f64::MAX][i % 5];
        result.throughput.compress_per_core_mib_s = [Some(f64::NAN), Some(0.0), Some(f64::MAX), None][i % 4];
        (result.blocks, result.raw_blocks) = (0, u64::MAX);
        result.histogram = [vec![], vec![u64::MAX / 64; 64], vec![1; 3]][i % 3].clone();
        result.block_size = [0, 1, u64::MAX][i % 3];
    }
    if let Some(plan) = &mut absurd.planner {
        (plan.overcommit, plan.odds, plan.physical) = (f64::NAN, 0.0, 0);
        plan.curve.iter_mut().for_each(|p| p.probability_of_overflow = f64::NAN);
    }

    let mut unfinished = full();
    unfinished.source.interrupted = true;
    unfinished.source.sampled = Some(Sample { bytes: 1 << 30, run_bytes: 1 << 20, seed: 7 });
    unfinished.failures = vec!["cannot read a.bin: permission denied".into()];

    vec![
        ("full", full()),
        ("one codec", report(&["lz4"], &[4096])),
        ("no plan", unplanned),
        ("all same-filled", same_filled),
        ("nothing", nothing),
        ("absurd", absurd),
        ("unfinished", unfinished),
    ]
}

/// Every opened element is closed, in order, and no text holds a bare `<` or an unknown entity.
fn check_well_formed(page: &str) -> Result<(), String> {
    let mut open = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"].iter().any(|name| entity.starts_with(name));
            known.then_some(()).ok_or_else(|| format!("a bare & before {entity:.20}"))?;
        }
        let end = tag.find('>').ok_or("a tag without an end")?;
        let inner = &tag[1..end];
        if inner.contains('<') || inner.matches('"').count() % 2 != 0 {
            return Err(format!("a broken tag: <{inner}>"));
        }
        if let Some(name) = inner.strip_prefix('/') {
            let opened = open.pop();
            (opened == Some(name)).then_some(()).ok_or_else(|| format!("</{name}> closes {opened:?}"))?;
        } else {
            let name = inner.split_whitespace().next().unwrap_or("");
            // What HTML calls void: these have no content and no end.
            if !["meta", "br"].contains(&name) {
                open.push(name);
            }
        }
        rest = &tag[end + 1..];
    }
    open.is_empty().then_some(()).ok_or_else(|| format!("left open: {open:?}"))
}

#[test]
fn every_page_is_well_formed_whatever_the_report_lacks() {
    for (name, report) in odd_reports() {
        let page = page(&report);
        check_well_formed(&page).unwrap_or_else(|e| panic!("{name}: {e}"));
        let broken = ["NaN", "\"inf", ">inf"]
            .into_iter()
            .find_map(|w| page.find(w).map(|at| page[at.saturating_sub(80)..].to_owned()));
        assert!(broken.is_none(), "{name}: {:.200}", broken.unwrap_or_default());
    }
}

#[test]
fn the_check_for_well_formed_pages_finds_what_is_not() {
    for broken in ["<p>", "<p></b>", "<p>&nbsp;</p>", "<p title=\"a>b</p>", "<p>a < b</p>"] {
        assert!(check_well_formed(&format!("<!DOCTYPE html>{broken}")).is_err(), "{broken}");
    }
}

#[test]
fn names_from_outside_are_shown_as_text_and_never_become_markup() {
    let hostile = "</title><script>alert('1')</script><img src=x onerror=\"alert(2)\">&\u{202e}\u{0}";
    let mut report = full();
    report.version = hostile.into();
    report.source.what = hostile.into();
    report.failures = vec![hostile.into()];
    report.results[0].codec = hostile.into();
    if let Some(plan) = &mut report.planner {
        plan.codec = hostile.into();
        plan.assumptions = vec![hostile.into()];
    }
    let page = page(&report);
    check_well_formed(&page).unwrap();
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(!page.contains('\u{202e}') && !page.contains('\u{0}'));
    let shown = page.matches("&lt;script&gt;alert('1')&lt;/script&gt;").count();
    assert!(shown >= 6, "title, source, version, failure, codec and assumption, but only {shown}");
}

#[test]
fn the_page_loads_nothing() {
    for (name, report) in odd_reports() {
        let page = page(&report).to_lowercase();
        for reference in
            ["http:", "https:", "src=", "href=", "@import", "url(", "<script", "<link", "<object", "<iframe"]
        {
            assert!(!page.contains(reference), "{name}: {reference}");
        }
        assert!(page.contains("default-src 'none'"), "{name}");
    }
}

#[test]
fn every_codec_and_block_size_has_a_row_and_is_drawn() {
    let report = full();
    let page = page(&report);
    let (drawings, table) = page.split_once("<tbody>").unwrap();
    assert_eq!(table.matches("<th scope=\"row\">").count(), report.results.len());
    for result in &report.results {
        let block = cxl_cram_kit::size::format_bytes(result.block_size);
        assert!(table.contains(&format!("{}</th><td>{block}</td>", result.codec)), "{} {block}", result.codec);
        // A bar and a point, for the wide page and for the narrow one.
        let bar = format!("<title>{}, {block}: effective ratio", result.codec);
        let point = format!("<title>{}, {block} (", result.codec);
        assert_eq!(drawings.matches(&bar).count(), 4, "{bar}");
        assert_eq!(drawings.matches(&point).count(), 2, "{point}");
    }
    // Sizes: an outline a codec and block size, at two widths.
    assert_eq!(drawings.matches("class=\"step ").count(), 2 * report.results.len());
}

#[test]
fn the_plan_is_shown_with_its_assumptions_and_watermarks() {
    let page = page(&full());
    let serve =
        "serve --socket PATH --codec lz4 --capacity 400G --physical 256G --low-watermark 5G --high-watermark 8G";
    for text in ["1 in 1,000,000", "1.92x", "400 GiB", "5 GiB free", "8 GiB free", "Windows are alike.", serve] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("class=\"curve\"").count(), 2);
    assert_eq!(page.matches("class=\"chosen\"").count(), 2);
}

#[test]
fn without_a_plan_the_page_gives_the_reason_and_draws_no_curve() {
    let mut report = full();
    report.planner = None;
    report.no_plan = Some("too little data: 4 KiB < 64 MiB".into());
    let page = page(&report);
    assert!(page.contains("There is no plan: too little data: 4 KiB &lt; 64 MiB."));
    assert!(!page.contains("class=\"curve\""));
}

#[test]
fn a_sample_an_interruption_and_failures_are_stated_at_the_head() {
    let (_, report) = odd_reports().pop().unwrap();
    let page = page(&report);
    let head = page.split_once("</header>").unwrap().0;
    for text in ["a sample of 1 GiB", "seed 7", "was interrupted", "cannot read a.bin: permission denied"] {
        assert!(head.contains(text), "{text}");
    }
    assert!(page.contains("--sample 1G --seed 7"));
}

#[test]
fn holes_and_compressed_parts_are_stated_at_the_head() {
    let mut report = full();
    report.source.holes_bytes = 3 << 30;
    report.source.compressed =
        vec![Compressed { format: "zstd".into(), parts: 1 }, Compressed { format: "gzip".into(), parts: 2 }];
    let page = page(&report);
    let head = page.split_once("</header>").unwrap().0;
    for text in ["3 GiB of sparse files were never written", "compressed already: 3 parts (1 zstd, 2 gzip)"] {
        assert!(head.contains(text), "{text}");
    }
}

#[test]
fn every_drawing_has_a_name_and_a_description_of_its_own() {
    let page = page(&full());
    let names: Vec<_> = page.split("aria-labelledby=\"").skip(1).map(|s| s.split('"').next().unwrap()).collect();
    let drawings = page.matches("<svg ").count();
    assert_eq!(drawings, 2 * (5 + 3));
    let mut ids: Vec<_> = names.iter().flat_map(|n| n.split(' ')).collect();
    for id in &ids {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn equal_reports_give_equal_pages() {
    assert_eq!(page(&full()), page(&full()));
}
