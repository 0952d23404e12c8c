//! What goes wrong gets one clear sentence and an exit code; what was measured is still reported.

use std::io::Write;
use std::process::{Command, Stdio};

use super::data::{PAGE, bench, core, file, noise, over, report, said, text};

/// How each begins, its name, and what to do.
const CONTAINERS: &[(&[u8], &str, &str)] = &[
    (b"\x28\xb5\x2f\xfd", "zstd", "`zstd -dc PATH | cxl-cram-device bench -`"),
    (b"\x04\x22\x4d\x18", "lz4", "`lz4 -dc PATH | cxl-cram-device bench -`"),
    (b"\x02\x21\x4c\x18", "lz4", "--as-is"),
    (b"\x1f\x8b\x08", "gzip", "`gzip -dc PATH | cxl-cram-device bench -`"),
    (b"\xfd7zXZ\0", "xz", "`xz -dc PATH | cxl-cram-device bench -`"),
    (b"BZh91AY&SY", "bzip2", "`bzip2 -dc PATH | cxl-cram-device bench -`"),
    (b"QFI\xfb", "qcow2", "`qemu-img convert -O raw PATH raw.img`"),
];

#[track_caller]
fn assert_refused(output: &std::process::Output, sentence: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(sentence), "{said}");
    assert!(said.matches("os error").count() <= 1, "a cause is repeated: {said}");
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
fn a_zombie_is_named_as_such() {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    // At the end of its output it has ended, or is about to.
    std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut Vec::new()).unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_refused(&bench(&["--pid", &child.id().to_string()]).output().unwrap(), "has ended and left no memory");
    child.wait().unwrap();
}

#[test]
fn a_kernel_thread_is_named_as_such() {
    // The only process whose parent is no process, but for the first: the parent of all kernel threads.
    let stat = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    if !stat.starts_with("2 (kthreadd) ") {
        let _ = writeln!(std::io::stderr(), "skipped: a kernel thread for the bench: there is none in this namespace");
        return;
    }
    assert_refused(&bench(&["--pid", "2"]).output().unwrap(), "process 2 is the kernel thread kthreadd");
}

#[test]
fn a_compressed_file_is_recognised_by_its_contents_and_refused_with_what_to_do() {
    for (head, format, remedy) in CONTAINERS {
        let (_keep, path) = file(&[head, &noise(1)[..]].concat());
        let name = path.display();
        assert_refused(&over(&path, &[]), &format!("({format}): "));
        assert_refused(&over(&path, &[]), &remedy.replace("PATH", &name.to_string()));
        let output = over(&path, &["--json", "--codec", "lz4", "--as-is"]);
        assert!(output.status.success(), "{}", said(&output));
        let report = report(&output);
        let compressed: Vec<_> = report.source.compressed.iter().map(|c| (c.format.as_str(), c.parts)).collect();
        assert_eq!((report.source.pages, compressed), (2, vec![(*format, 1)]));
    }
}

#[test]
fn a_compressed_stream_is_refused_before_it_is_measured() {
    let feed = |flags: &[&str], bytes: &[u8]| {
        let mut child = bench(flags).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // In two parts, so that the beginning comes apart; refused, it closes the pipe.
        for part in [&bytes[..3], &bytes[3..]] {
            let _ = stdin.write_all(part);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    for (head, format, _) in CONTAINERS {
        let stream = [head, &noise(1)[..]].concat();
        assert_refused(&feed(&[], &stream), "standard input is ");
        assert_refused(&feed(&["-"], &stream), &format!("({format}): "));
        assert_eq!(report(&feed(&["--json", "--codec", "lz4", "--as-is"], &stream)).source.compressed.len(), 1);
    }
    assert_eq!(report(&feed(&["--json", "--codec", "lz4"], b"five!")).source.pages, 1);
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
    assert_refused(&over(&path, &["--html", page.to_str().unwrap()]), "page.html: No such file");
    let directory = keep.path().to_str().unwrap();
    let sentence = format!("cannot write {directory}: Is a directory (os error 21)\n");
    assert_refused(&over(&path, &["--html", directory]), &sentence);
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
        (["--physical", "0"], "4 KiB"),
        (["--physical", "9T"], "give 8T"),
    ] {
        let output = bench(&flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(said(&output).contains(hint), "{flags:?}: {}", said(&output));
    }
}
