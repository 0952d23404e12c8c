//! Every kind of input gives its pages.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::process::{Command, Stdio};

use super::data::{PAGE, bench, core, file, noise, over, report, said, text};

const JSON: [&str; 3] = ["--json", "--codec", "lz4"];

#[test]
fn a_directory_is_read_to_its_depths_without_following_links_or_opening_pipes() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("a/b/c");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("text"), text(3)).unwrap();
    std::fs::write(directory.path().join("short"), b"five!").unwrap();
    std::fs::write(directory.path().join("empty"), b"").unwrap();
    symlink(directory.path(), deep.join("loop")).unwrap();
    symlink("/dev/zero", directory.path().join("zero")).unwrap();
    assert!(Command::new("mkfifo").arg(deep.join("pipe")).status().unwrap().success());
    let output = over(directory.path(), &JSON);
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&output);
    assert_eq!((report.source.pages, report.source.parts, report.source.skipped), (4, 2, 3));
}

#[test]
fn standard_input_is_read_whole_or_as_much_as_asked() {
    for (flags, pages, sampled) in [(&[][..], 2001, false), (&["--sample", "1M"], 256, true), (&["-"], 2001, false)] {
        let mut child = bench(&JSON).args(flags).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            // With --sample the reader goes away before the end: not our concern.
            let _ = stdin.write_all(&[text(2000), vec![1, 2, 3]].concat());
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let report = report(&output);
        assert_eq!((report.source.pages, report.source.sampled.is_some()), (pages, sampled), "{flags:?}");
    }
}

#[test]
fn files_and_streams_are_measured_one_after_the_other() {
    let (keep, path) = file(&text(300));
    let pipe = keep.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = bench(&JSON).args([&path, &pipe]).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        std::fs::write(pipe, [noise(40), vec![1]].concat()).unwrap();
        stdin.write_all(&vec![0; 500 * PAGE]).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&output);
    assert_eq!((report.source.pages, report.source.parts, report.same_filled.zero), (300 + 41 + 500, 3, 500));
    assert_eq!(report.results[0].raw_blocks, 40);
}

#[test]
fn of_a_core_dump_only_the_memory_is_measured() {
    let (_keep, path) = file(&core(&[&vec![0; 5 * PAGE], &text(7), &noise(2)]));
    let report = report(&over(&path, &JSON));
    assert_eq!((report.source.pages, report.same_filled.zero), (14, 5));
    assert_eq!(report.results[0].raw_blocks, 2);
}

/// Writes data into a file that is one hole.
fn sparse(path: &std::path::Path, len: u64, parts: &[(u64, &[u8])]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
}

#[test]
fn holes_are_left_out_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (path, far) = (directory.path().join("sparse"), 1 << 30);
    sparse(&path, (8 << 30) + 5, &[(far, &text(16)), (2 * far, &noise(16))]);
    for input in [path.as_path(), directory.path()] {
        let report = report(&over(input, &JSON));
        assert_eq!((report.source.pages, report.same_filled.zero, report.results[0].raw_blocks), (32, 0, 16));
        assert_eq!(report.source.holes_bytes, (8 << 30) + 5 - 32 * PAGE as u64);
        assert_eq!((report.source.bytes_found, report.source.sampled), (32 * PAGE as u64, None));
        let shown = String::from_utf8(over(input, &["--codec", "lz4"]).stdout).unwrap();
        assert!(shown.contains("holes: 8.0 GiB were never written and are left out"), "{shown}");
    }
    let as_is = report(&over(&path, &["--json", "--codec", "lz4", "--as-is", "--sample", "1M"]));
    assert_eq!((as_is.source.holes_bytes, as_is.source.bytes_found), (0, (8 << 30) + PAGE as u64));
}

#[test]
fn a_file_of_nothing_but_a_hole_gives_no_figures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hole");
    sparse(&path, 100 << 30, &[]);
    let output = over(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("{} has no data in it: 100 GiB of holes, which were never written", path.display());
    assert!(said(&output).contains(&sentence), "{}", said(&output));
}

#[test]
fn of_a_sparse_core_dump_only_the_memory_that_was_written_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("core");
    let segment = vec![0; 512 * PAGE];
    let headers = core(&[&segment])[..PAGE].to_vec();
    sparse(&path, 513 * PAGE as u64, &[(0, &headers), (257 * PAGE as u64, &text(16))]);
    let report = report(&over(&path, &JSON));
    assert_eq!((report.source.pages, report.source.holes_bytes), (16, 496 * PAGE as u64));
}

#[test]
fn compressed_files_in_a_directory_are_measured_as_they_are_and_noted() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a"), [b"\x28\xb5\x2f\xfd", &noise(300)[..]].concat()).unwrap();
    std::fs::write(path("b"), [b"\x1f\x8b\x08", &noise(1)[..]].concat()).unwrap();
    std::fs::write(path("c"), [b"\x1f\x8b\x08", &noise(1)[..]].concat()).unwrap();
    std::fs::write(path("d"), text(40)).unwrap();
    let report = report(&over(directory.path(), &JSON));
    assert_eq!((report.source.pages, report.source.parts, report.failures.len()), (301 + 2 + 2 + 40, 4, 0));
    let compressed: Vec<_> = report.source.compressed.iter().map(|c| (c.format.as_str(), c.parts)).collect();
    assert_eq!(compressed, [("zstd", 1), ("gzip", 2)]);
    let shown = String::from_utf8(over(directory.path(), &["--codec", "lz4"]).stdout).unwrap();
    assert!(shown.contains("compressed already: 3 parts (1 zstd, 2 gzip), measured as the bytes there are"), "{shown}");
}

#[test]
fn an_elf_program_is_measured_as_the_file_it_is() {
    let program = std::env::current_exe().unwrap();
    let pages = std::fs::metadata(&program).unwrap().len().div_ceil(PAGE as u64);
    let report = report(&over(&program, &["--json", "--codec", "lz4", "--all"]));
    // A linker leaves a hole here and there.
    assert_eq!(report.source.pages + report.source.holes_bytes / PAGE as u64, pages);
}

#[test]
fn of_a_process_the_resident_anonymous_pages_are_measured() {
    if !rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0")
    {
        eprintln!("skipped: kernel.yama.ptrace_scope lets only root read the memory of another process");
        return;
    }
    // A shell that holds 4 MiB of text, says so, and waits.
    let mut child = Command::new("sh")
        .args(["-c", "x=$(head -c 4194304); echo ready; read y; echo ${#x}"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'a'; 4 << 20]).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let output = bench(&JSON).args(["--pid", &child.id().to_string()]).output().unwrap();
    drop(stdin);
    child.wait().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let report = report(&output);
    assert!(report.source.pages >= 1024, "{}", report.source.pages);
    assert!(report.same_filled.other >= 1000, "{:?}", report.same_filled);
}
