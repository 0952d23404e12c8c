//! What goes wrong gets one clear sentence and an exit code; what was measured is still reported.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::data::{PAGE, bench, core, file, noise, over, report, said, text};

#[track_caller]
fn assert_refused(output: &std::process::Output, sentence: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(sentence), "{said}");
}

#[test]
fn a_missing_file_alone_is_an_error_and_beside_others_a_failure() {
    let (keep, path) = file(&text(4));
    let missing = keep.path().join("missing");
    assert_refused(&over(&missing, &["--json"]), "No such file");
    let output = bench(&["--json"]).args([&missing, &path]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((report.source.pages, report.failures.len()), (4, 1));
    assert!(said(&output).contains(&report.failures[0]));
}

#[test]
fn empty_input_is_an_error() {
    let (_keep, path) = file(b"");
    assert_refused(&over(&path, &[]), "has no data in it");
    assert_refused(&bench(&[]).output().unwrap(), "has no data in it");
}

#[test]
fn a_truncated_core_dump_is_an_error_wherever_it_was_cut() {
    let whole = core(&[&text(7), &noise(2)]);
    for len in [whole.len() - 1, 2 * PAGE, 100, 65] {
        let (_keep, path) = file(&whole[..len]);
        assert_refused(&over(&path, &[]), "the core dump is truncated");
    }
}

#[test]
fn hostile_elf_headers_are_refused_or_read_as_plain_bytes() {
    let whole = core(&[&text(3)]);
    for at in 0..64 + 2 * 56 {
        let mut damaged = whole.clone();
        damaged[at] = !damaged[at];
        let (_keep, path) = file(&damaged);
        let output = over(&path, &["--json", "--codec", "lz4", "--threads", "1"]);
        // Neither a panic (101) nor a signal (none).
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {at}: {}", said(&output));
    }
}

#[test]
fn a_compressed_kdump_is_named_as_such() {
    let (_keep, path) = file(&[b"KDUMP   ", &noise(1)[..]].concat());
    assert_refused(&over(&path, &[]), "compressed kdump");
}

#[test]
fn a_device_that_never_ends_is_refused() {
    assert_refused(&bench(&["/dev/zero"]).output().unwrap(), "neither file, directory");
}

#[test]
fn a_process_that_has_ended_is_named_as_such() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    assert_refused(&bench(&["--pid", &child.id().to_string()]).output().unwrap(), "there is no process");
}

#[test]
fn a_closed_pipe_is_an_error_and_no_panic() {
    let (_keep, path) = file(&text(4));
    for flags in [&["--json"][..], &[]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench(flags).arg(&path).stdout(writer).output().unwrap();
        assert_refused(&output, "cannot write the report: Broken pipe");
    }
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    let (keep, path) = file(&text(4));
    let page = keep.path().join("missing/page.html");
    assert_refused(&over(&path, &["--html", page.to_str().unwrap()]), "page.html");
}

#[test]
fn an_interrupt_reports_what_was_measured_and_exits_with_130() {
    for signal in ["-INT", "-TERM"] {
        let mut child = bench(&["--json", "--codec", "lz4"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Once this is written, all but what a pipe holds has been read, so the handlers stand. The pipe stays open.
        stdin.write_all(&text(2048)).unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        let report = report(&output);
        assert!(report.source.interrupted);
        assert!((2000..=2048).contains(&report.source.pages), "{}", report.source.pages);
        assert_eq!(report.results[0].blocks, report.source.pages);
    }
}

#[test]
fn flags_out_of_range_are_refused_with_what_would_be_right() {
    for (flags, hint) in [
        (["--block-size", "3K"], "1K, 2K, 4K, 8K or 16K"),
        (["--codec", "lzma"], "zstd:LEVEL"),
        (["--codec", "adaptive:9"], "--codec lz4,zstd:9"),
        (["--odds", "0"], "1e-12 to 0.5"),
        (["--odds", "NaN"], "1e-12 to 0.5"),
        (["--sample", "0"], "--all"),
        (["--write-rate", "inf"], "MiB per second"),
        (["--window", "0"], "65536"),
    ] {
        let output = bench(&flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(said(&output).contains(hint), "{flags:?}: {}", said(&output));
    }
}
