//! The figures of the report agree with the data and with each other.

use cxl_cram_device::bench::report::Report;

use super::data::{PAGE, file, noise, over, report, text};

fn assert_consistent(report: &Report) {
    let pages = report.source.pages;
    assert_eq!(report.source.bytes_measured, pages * PAGE as u64);
    assert!(!report.results.is_empty());
    for result in &report.results {
        let logical = (result.blocks * result.block_size) as f64;
        assert!(logical >= report.source.bytes_measured as f64);
        assert!(logical < (report.source.bytes_measured + result.block_size) as f64);
        assert_eq!(result.histogram.len(), 64);
        assert_eq!(result.histogram.iter().sum::<u64>(), result.blocks - result.same_filled_blocks);
        assert!(result.histogram[63] >= result.raw_blocks);
        let class = result.block_size / 64;
        let most: u64 = (1..).zip(&result.histogram).map(|(at, count)| at * class * count).sum();
        assert!(result.data_bytes <= most, "{} of at most {most}", result.data_bytes);
        assert!(result.footprint_bytes >= result.data_bytes);
        assert!((result.effective_ratio - logical / result.footprint_bytes as f64).abs() < 1e-9 * logical);
        if let Some(ratio) = result.data_ratio {
            assert!((ratio - logical / result.data_bytes as f64).abs() < 1e-9);
            assert!(result.data_ratio_without_same_filled.unwrap() <= ratio);
            assert!(result.effective_ratio < ratio);
            assert!(result.compress.is_some());
        }
        assert_eq!(result.decompress.is_some(), result.blocks > result.same_filled_blocks + result.raw_blocks);
    }
}

#[test]
fn every_codec_and_block_size_asked_for_is_reported_once_and_adds_up() {
    let (_keep, path) = file(&[vec![0; 40 * PAGE], text(300), noise(50), vec![7; 3 * PAGE]].concat());
    let output = over(&path, &["--json", "--codec", "lz4,zstd:1,zstd:3,lz4", "--block-size", "1K,2K,4K,8K,16K"]);
    assert!(output.status.success());
    let report = report(&output);
    assert_consistent(&report);
    assert_eq!(report.source.pages, 393);
    assert_eq!((report.same_filled.zero, report.same_filled.other), (40, 3));
    let asked: Vec<_> = report.results.iter().map(|result| (result.codec.as_str(), result.block_size)).collect();
    let sizes = [1024, 2048, 4096, 8192, 16_384];
    let expected: Vec<_> =
        ["lz4", "zstd:1", "zstd:3"].iter().flat_map(|codec| sizes.map(|size| (*codec, size))).collect();
    assert_eq!(asked, expected);
    // Larger blocks never lose much, and a stronger codec wins on text.
    let ratio = |at: usize| report.results[at].data_ratio.unwrap();
    assert!(ratio(4) > ratio(0) && ratio(7) > ratio(2), "{:?}", report.results);
}

#[test]
fn the_size_class_rule_agrees_with_the_real_store() {
    let (_keep, path) = file(&[text(600), noise(100), vec![0; 68 * PAGE]].concat());
    let report = report(&over(&path, &["--json", "--codec", "lz4,zstd:1"]));
    for result in &report.results {
        let check = result.store_check.as_ref().unwrap();
        assert_eq!(check.blocks, 768);
        let ratio = check.store_bytes as f64 / check.rule_bytes as f64;
        // The store's lists grow ahead, and its map by leaves of 512 blocks.
        assert!((0.99..1.03).contains(&ratio), "{check:?}");
        assert_eq!(result.footprint_bytes, check.store_bytes);
    }
}

#[test]
fn noise_is_raw_and_takes_a_little_more_than_itself() {
    let (_keep, path) = file(&noise(256));
    let report = report(&over(&path, &["--json", "--codec", "lz4,zstd:3"]));
    assert_consistent(&report);
    for result in &report.results {
        assert_eq!((result.raw_blocks, result.histogram[63]), (256, 256));
        assert_eq!(result.data_ratio, Some(1.0));
        assert!((0.95..1.0).contains(&result.effective_ratio), "{}", result.effective_ratio);
    }
}

#[test]
fn a_plan_takes_64_mib_and_data_that_compresses() {
    let quarter = text(4096);
    for (data, why) in [
        (vec![1, 2, 3], Some("too little data: 4 KiB measured, and a plan takes at least 64 MiB")),
        (quarter.repeat(3), Some("too little data: 48 MiB measured")),
        (noise(4096).repeat(4), Some("which is less than the media there is")),
        (quarter.repeat(4), None),
    ] {
        let (_keep, path) = file(&data);
        let output = over(&path, &["--json", "--codec", "lz4"]);
        assert!(output.status.success());
        let report = report(&output);
        assert_eq!(report.planner.is_none(), why.is_some());
        match (&report.no_plan, why) {
            (Some(reason), Some(why)) => assert!(reason.contains(why), "{reason}"),
            (reason, why) => assert_eq!(reason.as_deref(), why),
        }
        let shown = String::from_utf8(over(&path, &["--codec", "lz4"]).stdout).unwrap();
        assert_eq!(shown.contains("could promise") && shown.contains("--capacity"), why.is_none(), "{shown}");
    }
}

#[test]
fn the_number_of_threads_changes_no_plan() {
    let (_keep, path) = file(&[text(8192), noise(2048), text(10_000)].concat());
    let plans = ["1", "3"].map(|threads| {
        let output = over(&path, &["--json", "--codec", "lz4", "--physical", "1T", "--threads", threads]);
        report(&output).planner.unwrap().curve
    });
    assert_eq!(plans[0], plans[1]);
}

#[test]
fn zeros_have_no_data_ratio_but_an_effective_one() {
    let (_keep, path) = file(&vec![0; 1024 * PAGE]);
    let report = report(&over(&path, &["--json", "--codec", "lz4"]));
    assert_consistent(&report);
    let result = &report.results[0];
    assert_eq!((result.same_filled_blocks, result.data_ratio, result.packing), (1024, None, None));
    assert_eq!((result.compress.clone(), result.effective_ratio_without_same_filled), (None, None));
    assert_eq!(result.footprint_bytes, 1024 * 8);
}

#[test]
fn a_sample_is_as_large_as_asked_stated_and_the_same_again() {
    let (_keep, path) = file(&[text(2000), noise(2000)].concat());
    let flags = ["--json", "--codec", "lz4", "--sample", "4M", "--seed", "5"];
    let (first, again) = (report(&over(&path, &flags)), report(&over(&path, &flags)));
    assert_consistent(&first);
    assert_eq!((first.source.bytes_measured, first.source.bytes_found), (4 << 20, 4000 * PAGE as u64));
    let sample = first.source.sampled.as_ref().unwrap();
    assert_eq!((sample.bytes, sample.run_bytes, sample.seed), (4 << 20, 1 << 20, 5));
    assert_eq!(first.results[0].histogram, again.results[0].histogram);
    let all = report(&over(&path, &["--json", "--codec", "lz4", "--all"]));
    assert_eq!((all.source.sampled, all.source.pages), (None, 4000));
}

#[test]
fn the_number_of_threads_changes_no_ratio() {
    let tree = tempfile::tempdir().unwrap();
    let (text, noise) = (text(40), noise(10));
    for number in 0..60 {
        let directory = tree.path().join(format!("{}/{}", number % 7, number % 3));
        std::fs::create_dir_all(&directory).unwrap();
        let end = 1 + number * 2711;
        std::fs::write(directory.join(format!("text{number}")), &text[..end]).unwrap();
        std::fs::write(directory.join(format!("noise{number}")), &noise[..end / 6]).unwrap();
    }
    for flags in [&[][..], &["--sample", "3M"]] {
        let figures = ["1", "4"].map(|threads| {
            let report = report(&over(tree.path(), &[&["--json", "--threads", threads], flags].concat()));
            assert!(report.source.bytes_measured >= 3 << 20);
            let results = report.results.into_iter();
            let results: Vec<_> =
                results.map(|result| (result.histogram, result.footprint_bytes, result.store_check)).collect();
            (results, report.source.parts, report.no_plan)
        });
        assert_eq!(figures[0], figures[1], "{flags:?}");
    }
}

#[test]
fn the_bare_codecs_run_only_if_asked_for_and_change_no_ratio() {
    let (_keep, path) = file(&[text(700), noise(70)].concat());
    let [without, with] = [&["--json"][..], &["--json", "--compare-raw"]].map(|flags| report(&over(&path, flags)));
    for (without, with) in without.results.iter().zip(&with.results) {
        assert_eq!(without.throughput.engine_over_raw, None);
        assert!(with.throughput.engine_over_raw.unwrap() > 0.0);
        assert_eq!(without.histogram, with.histogram);
    }
}

#[test]
fn one_part_measured_whole_is_reported_in_the_singular() {
    let (_keep, path) = file(b"abc");
    let table = String::from_utf8(over(&path, &["--threads", "1"]).stdout).unwrap();
    let line = table.lines().nth(1).unwrap();
    assert!(line.starts_with("measured all 4 KiB (1 part), ") && line.ends_with(" s on 1 thread"), "{line}");
    // One row for all sizes that no block has, and a sentence at the end.
    assert!(table.contains(" 257..4096 B   0.0 %\n"), "{table}");
    assert!(
        table.ends_with("\nThere is no plan: too little data: 4 KiB measured, and a plan takes at least 64 MiB.\n")
    );
}

#[test]
fn the_table_fits_100_columns_and_has_no_escapes_in_a_pipe() {
    let (_keep, path) = file(&[text(4096).repeat(4), vec![0; PAGE]].concat());
    let output = over(&path, &["--codec", "lz4,zstd:3", "--block-size", "4K,16K", "--compare-raw"]);
    let table = String::from_utf8(output.stdout).unwrap();
    for word in ["zstd:3", "effective ratio", "same-filled", "overcommit", "--low-watermark", "bare codecs"] {
        assert!(table.contains(word), "{word} is not in:\n{table}");
    }
    assert!(!table.contains('\x1b'));
    assert!(!table.contains("0.00e0"));
    let curve: Vec<_> = table.lines().skip_while(|line| !line.contains("probability")).skip(1).collect();
    let rows: Vec<_> =
        curve.iter().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().nth(1)).collect();
    assert!(!rows.is_empty() && rows.windows(2).all(|pair| pair[0] != pair[1]), "{table}");
    // The first line is the name of the input.
    for line in table.lines().skip(1) {
        assert!(line.chars().count() <= 100, "{line}");
    }
}
