//! `completions` and `man`: bash really completes, and every command has a page.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output, Stdio};

fn device(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cxl-cram-device")).args(arguments).output().unwrap()
}

/// Completes the last word as bash does on Tab: by the function that the script registers for the program.
const COMPLETE: &str = r#"
source "$1"; shift
[[ $(complete -p "$1") =~ -F\ ([^ ]+) ]] || exit 3
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_commands_and_then_their_options_and_values() {
    if Command::new("bash").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no bash");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    std::fs::write(&script, device(&["completions", "bash"]).stdout).unwrap();
    for (line, expected) in [
        ("cxl-cram-device s", &["serve"][..]),
        ("cxl-cram-device bench --com", &["--compare-raw"]),
        ("cxl-cram-device serve --low", &["--low-watermark"]),
        ("cxl-cram-device serve --window t", &["trap"]),
        ("cxl-cram-device -V serve --capacity 1G --window f", &["fuse"]),
        ("cxl-cram-device completions z", &["zsh"]),
    ] {
        let words = line.split_ascii_whitespace();
        let output = Command::new("bash").args(["-c", COMPLETE, "bash"]).arg(&script).args(words).output().unwrap();
        let completed = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(completed.lines().collect::<Vec<_>>(), expected, "{line}: {stderr}");
    }
}

#[test]
fn every_shell_has_completions_and_every_command_a_page() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = device(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("cxl-cram-device") && script.contains("low-watermark"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    assert!(device(&["man", pages.to_str().unwrap()]).status.success());
    for page in ["cxl-cram-device.1", "cxl-cram-device-serve.1", "cxl-cram-device-bench.1", "cxl-cram-device-man.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
    assert!(String::from_utf8(device(&["man"]).stdout).unwrap().contains(".TH cxl-cram-device 1"));
}

#[test]
fn a_folder_that_cannot_be_made_is_reported_once() {
    let output = device(&["man", "/dev/null/man"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot create /dev/null/man") && stderr.matches("os error").count() == 1, "{stderr}");
}
