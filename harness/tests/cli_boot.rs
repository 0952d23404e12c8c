//! `boot -c`: one command in a guest, as `git bisect run` uses it. Needs a guest: skipped where none can be played with.

use std::{
    path::Path,
    process::{Command, Output},
};

use cxl_cram_harness::scenario::obstacle;

/// Boots and runs a line, with a folder of its own for temporary files, which must be empty afterwards.
fn boot(arguments: &[&str]) -> Option<Output> {
    if let Some(obstacle) = obstacle() {
        println!("skipping: {obstacle}");
        return None;
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    let output = command.arg("boot").args(arguments).env("TMPDIR", temporary.path()).output().unwrap();
    assert_eq!(left_in(temporary.path()), Vec::<String>::new(), "left behind");
    Some(output)
}

fn left_in(folder: &Path) -> Vec<String> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_command_in_the_guest_gives_its_output_and_its_exit_code() {
    let line = "cxl list -M | grep -o mem0; echo trouble >&2; exit 7";
    let Some(output) = boot(&["--capacity", "256M", "--physical", "64M", "-c", line]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mem0\n", "{stderr}");
    assert!(stderr.contains("trouble"), "{stderr}");
}

#[test]
fn an_overlay_is_in_the_guests_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("opt")).unwrap();
    std::fs::write(folder.path().join("opt/word"), "overlaid\n").unwrap();
    let Some(output) = boot(&["--overlay", folder.path().to_str().unwrap(), "-c", "cat /opt/word"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "overlaid\n", "{stderr}");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

#[test]
fn a_guest_that_answers_no_more_is_made_to_say_where_it_hangs() {
    // The shell's parent is the agent.
    let Some(output) = boot(&["--limit", "2", "-c", "kill -STOP $PPID; sleep 1000"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(stderr.contains("the guest does not answer") && stderr.contains("Kernel panic"), "{stderr}");
    assert!(stderr.contains("QEMU's threads:\n    "), "{stderr}");
}

#[test]
fn a_kernel_that_is_not_there_cannot_be_tested() {
    let Some(output) = boot(&["--kernel", "/nonexistent/bzImage", "-c", "true"]) else { return };
    assert_eq!(output.status.code(), Some(125));
}
