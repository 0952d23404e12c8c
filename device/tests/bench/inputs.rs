//! Every kind of input gives its pages.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::data::{PAGE, bench, core, file, noise, over, report, said, text};

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

#[test]
fn an_elf_program_is_measured_as_the_file_it_is() {
    let program = std::env::current_exe().unwrap();
    let pages = std::fs::metadata(&program).unwrap().len().div_ceil(PAGE as u64);
    let report = report(&over(&program, &["--json", "--codec", "lz4", "--all"]));
    assert_eq!(report.source.pages, pages);
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
