//! The command line without a guest: lists, generated files, and errors.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use cxl_cram_scenarios::CATALOG;

fn harness(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness")).args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = harness(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = harness(arguments);
    assert!(!output.status.success(), "{arguments:?} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_scenario_is_listed_with_its_description_and_needs() {
    let listed: serde_json::Value = serde_json::from_str(&stdout(&["list", "--json"])).unwrap();
    let listed = listed["scenarios"].as_array().unwrap();
    assert_eq!(listed.len(), CATALOG.scenarios.len());
    for scenario in CATALOG.scenarios {
        let found = listed.iter().find(|listed| listed["name"] == scenario.name).unwrap();
        assert_eq!(found["story"], scenario.story);
        assert_eq!(found["only-by-name"], scenario.by_name);
        assert_eq!(found["needs"].as_array().unwrap().len(), scenario.needs.len());
    }
}

#[test]
fn the_parts_of_a_list_add_up_to_the_list() {
    let names = |partition: &str| -> Vec<String> {
        let listed: serde_json::Value =
            serde_json::from_str(&stdout(&["list", "--json", "--partition", partition])).unwrap();
        let listed = listed["scenarios"].as_array().unwrap();
        listed.iter().map(|scenario| scenario["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut parts = [names("1/2"), names("count:2/2")].concat();
    parts.sort();
    assert_eq!(parts, names("1/1"));
}

#[test]
fn a_scenario_that_takes_minutes_runs_only_by_exact_name() {
    let listed = |words: &[&str]| stdout(&[&["list", "--partition", "1/1"], words].concat());
    let soak = CATALOG.scenarios.iter().find(|scenario| scenario.by_name).unwrap().name;
    assert!(!listed(&[]).contains(soak) && stdout(&["list"]).contains("only by exact name"));
    assert!(!listed(&["cram"]).contains(soak));
    for words in [&[soak][..], &[&format!("={soak}")], &["--all"]] {
        assert!(listed(words).contains(soak), "{words:?}");
    }
    assert!(refused(&["run", &soak[..soak.len() - 1]]).contains("--all"));
}

#[test]
fn the_error_names_words_that_match_no_scenario() {
    for command in ["run", "list"] {
        assert!(refused(&[command, "no-such-scenario"]).contains("no-such-scenario"));
        assert!(refused(&[command, "=enumerate", "watermrk"]).contains("no scenario matches watermrk"));
        assert!(refused(&[command, "--skip", "watermrk"]).contains("no scenario matches watermrk"));
        assert!(refused(&[command, "bear", "--skip", "bear"]).contains("--skip 'bear' skips every scenario"));
        assert_eq!(harness(&[command, "=bear", "=zero"]).status.code(), Some(2));
    }
    assert!(refused(&["boot", "--shape", "no-such-scenario"]).contains("no-such-scenario"));
    assert!(refused(&["run", "--partition", "3/2"]).contains("K/N"));
}

#[test]
fn selftests_are_listed_by_collection_and_an_unknown_one_is_refused_with_those_there_are() {
    let tree = tempfile::tempdir().unwrap();
    let tests = tree.path().join("tools/testing/selftests");
    for collection in ["cgroup", "mm"] {
        fs::create_dir_all(tests.join(collection)).unwrap();
        fs::write(tests.join(collection).join("Makefile"), "").unwrap();
    }
    fs::write(tests.join("Makefile"), "TARGETS = cgroup\nTARGETS += mm\n").unwrap();
    fs::write(tree.path().join("Makefile"), "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n").unwrap();
    let tree = tree.path().to_str().unwrap();
    assert_eq!(stdout(&["selftest", "--list", "--tests-from", tree]), "cgroup\nmm\n");
    let output = harness(&["selftest", "--list", "--tests-from", tree, "dax"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("has no selftests dax; it has cgroup, mm"), "{error}");
    assert_eq!(output.status.code(), Some(2));
    assert!(refused(&["selftest"]).contains("name a collection"));
    assert!(refused(&["selftest", "--list", "mm:"]).contains("names no test"));
    assert!(refused(&["boot", "--packages", "a b"]).contains("NAME or NAME=VERSION"));
}

/// A run that must fail before it provisions anything.
fn run(arguments: &[&str], artifacts: &Path) -> (Option<i32>, String) {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().to_str().unwrap();
    let folder = artifacts.to_str().unwrap();
    let output = harness(&[&["run", "--artifacts", folder, "--offline", "--cache-dir", cache], arguments].concat());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn foreign_files_in_the_artifact_folder_stay_and_the_run_is_refused() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("region")).unwrap();
    fs::write(top.path().join("region/thesis.tex"), "years").unwrap();
    let (code, error) = run(&["=region", "=bear"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("region was not made by cxl-cram-harness") && error.contains("--artifacts"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(fs::read_to_string(top.path().join("region/thesis.tex")).unwrap(), "years");
    assert!(!top.path().join("bear").exists());
    let (code, error) = run(&["=region"], Path::new("/proc/nowhere"));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--artifacts a folder that can be written"), "{error}");
}

#[test]
fn impossible_options_are_refused_before_anything_begins() {
    let top = tempfile::tempdir().unwrap();
    let (code, error) = run(&["=bear", "--device-args", "--bogus"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("unexpected argument '--bogus' found"), "{error}");
    let (code, error) = run(&["--memory", "0"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("at least 256 MiB"), "{error}");
    assert!(refused(&["run", "--jobs", "0"]).contains("must be at least 1"));
    assert!(refused(&["run", "--repeat", "0"]).contains("must be at least 1"));
}

#[test]
fn a_run_that_this_machine_cannot_do_exits_with_125() {
    let top = tempfile::tempdir().unwrap();
    let (code, error) = run(&["=bear", "--device-args", "--capacity 256G", "--accel", "tcg"], top.path());
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("256 GiB does not fit this guest's address space of 40 bits"), "{error}");
    // The cache is empty, and the run is offline.
    let (code, error) = run(&["=bear"], top.path());
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("cannot test: QEMU is not in the cache"), "{error}");
    let (code, error) = run(&["=bear", "--memory", "100G"], top.path());
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("smallest useful capacity is 2 GiB"), "{error}");
}

#[test]
fn accel_kvm_is_refused_if_kvm_cannot_be_used() {
    if cxl_cram_lab::machine::kvm::obstacle().is_none() {
        println!("skipping: KVM can be used here");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (code, error) = run(&["=bear", "--accel", "kvm"], top.path());
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains("--accel kvm cannot be used"), "{error}");
}

#[test]
fn failed_selects_the_scenarios_that_failed_last_time() {
    let top = tempfile::tempdir().unwrap();
    let (code, error) = run(&["--failed"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("no run has left its outcomes"), "{error}");
    let outcomes = |bear: &str| {
        let text = format!(r#"{{"scenarios": {{"bear": "{bear}", "region": "passed"}}}}"#);
        fs::write(top.path().join("cxl-cram-outcomes.json"), text).unwrap();
    };
    outcomes("passed");
    let (code, error) = run(&["--failed"], top.path());
    assert_eq!((code, error.trim()), (Some(0), "no scenario failed the last time"));
    // Only one of the two would run, so only its folder is checked.
    outcomes("failed");
    for name in ["bear", "region"] {
        fs::write(top.path().join(name), "").unwrap();
    }
    let (code, error) = run(&["--failed"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("bear is not a folder") && !error.contains("region"), "{error}");
    fs::write(top.path().join("cxl-cram-outcomes.json"), "mine").unwrap();
    let (code, error) = run(&["=bear"], top.path());
    assert_eq!(code, Some(2), "{error}");
    assert_eq!(fs::read_to_string(top.path().join("cxl-cram-outcomes.json")).unwrap(), "mine");
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&["man", folder.path().to_str().unwrap()]);
    let bash = stdout(&["completions", "bash"]);
    for command in ["run", "list", "boot", "doctor", "kernel", "report", "acpi", "qemu", "pins", "clean"] {
        let page = folder.path().join(format!("cxl-cram-harness-{command}.1"));
        assert!(page.is_file(), "{}", page.display());
        assert!(bash.contains(command), "{command}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Usage: cxl-cram-harness"), "{help}");
    }
}

/// Completes the last word as bash does on Tab, with the function that the script registers for the program.
const COMPLETE: &str = r#"
source "$1"; shift
[[ $(complete -p "$1") =~ -F\ ([^ ]+) ]] || exit 3
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"${BASH_REMATCH[1]}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_options_after_a_command_and_names_of_scenarios() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    std::fs::write(&script, stdout(&["completions", "bash"])).unwrap();
    for (line, expected) in [
        ("cxl-cram-harness doc", &["doctor"][..]),
        ("cxl-cram-harness run --partit", &["--partition"]),
        ("cxl-cram-harness run integ", &["integrity"]),
        ("cxl-cram-harness run --skip integ", &["integrity"]),
        ("cxl-cram-harness list enumerate integ", &["integrity"]),
        ("cxl-cram-harness boot --shape enumer", &["enumerate"]),
        ("cxl-cram-harness completions fi", &["fish"]),
    ] {
        let words = line.split_ascii_whitespace();
        let output = Command::new("bash").args(["-c", COMPLETE, "bash"]).arg(&script).args(words).output().unwrap();
        let completed = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(completed.lines().collect::<Vec<_>>(), expected, "{line}: {stderr}");
    }
    assert!(!stdout(&["run", "--help"]).contains("enumerate"), "the names are not in the help");
}

#[test]
fn doctor_fails_with_an_empty_cache_and_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["doctor", "--json", "--offline", "--cache-dir", cache.path().to_str().unwrap()];
    let output = harness(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings["fit"], false);
    let tools =
        findings["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == "guest tools").unwrap();
    assert_eq!(tools["state"], "lacking");
    assert!(tools["text"].as_str().unwrap().contains("--offline"));
    assert_eq!(cache.path().read_dir().unwrap().count(), 0, "a look makes nothing");
}

#[test]
fn the_error_names_an_unreadable_record() {
    assert!(refused(&["report", "merge", "/nonexistent/part.json"]).contains("/nonexistent/part.json"));
}

/// A folder with these files, which the harness did not make.
fn somebodys(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

#[test]
fn clean_refuses_every_folder_that_is_not_a_marked_cache() {
    let product = "kernel-0123456789ab/bzImage";
    for files in [
        &[("thesis.txt", "years"), ("logs/today", "x")][..],
        &[(product, "x")],
        // Another program's cache.
        &[(product, "x"), ("CACHEDIR.TAG", TAG)],
        // Marks that are not quite ours.
        &[(product, "x"), ("CACHEDIR.TAG", TAG), (".cxl-cram-cache", "")],
        &[(product, "x"), (".cxl-cram-cache", "cxl-cram cache, layout 1\n")],
        &[(product, "x"), ("CACHEDIR.TAG", "Signature: x"), (".cxl-cram-cache", "cxl-cram cache, layout 1\n")],
    ] {
        let folder = somebodys(files);
        let error = refused(&["clean", "--yes", "--cache-dir", folder.path().to_str().unwrap()]);
        assert!(error.contains("is not a cache of cxl-cram") && error.contains("nothing in it is removed"), "{error}");
        for (name, text) in files {
            assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), *text);
        }
        assert!(!folder.path().read_dir().unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("lock")));
    }
    assert!(refused(&["clean", "--yes", "--cache-dir", "/nonexistent/cache"]).contains("no cache to clean"));
}

#[test]
fn clean_asks_for_confirmation_and_keeps_foreign_files() {
    let folder = somebodys(&[
        ("CACHEDIR.TAG", TAG),
        (".cxl-cram-cache", "cxl-cram cache, layout 1\n"),
        ("kernel-0123456789ab/bzImage", "x"),
        (".lock-kernel-0123456789ab", ""),
        ("thesis.txt", "years"),
    ]);
    let cache = folder.path().to_str().unwrap();
    let asked = harness(&["clean", "--cache-dir", cache]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("kernel-0123456789ab"), "what would go is listed");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("give --yes"));
    assert!(folder.path().join("kernel-0123456789ab/bzImage").is_file());
    let cleaned = harness(&["clean", "--yes", "--cache-dir", cache]);
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains("removed"));
    assert!(String::from_utf8_lossy(&cleaned.stderr).contains("thesis.txt"));
    let mut left: Vec<_> = folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".cxl-cram-cache", "CACHEDIR.TAG", "thesis.txt"]);
}

#[test]
fn a_folder_with_files_does_not_become_the_cache() {
    let folder = somebodys(&[("thesis.txt", "years")]);
    let cache = folder.path().to_str().unwrap();
    let error = refused(&["kernel", "build", "--offline", "--cache-dir", cache]);
    assert!(error.contains("is neither empty nor a cache of cxl-cram"), "{error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn links_and_tags_in_a_new_cache_folder_are_not_overwritten() {
    let folder = somebodys(&[("precious", "years"), ("tagged/CACHEDIR.TAG", "Signature: another program's")]);
    let linked = folder.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink("../precious", linked.join("CACHEDIR.TAG")).unwrap();
    std::os::unix::fs::symlink("../victim", linked.join(".cxl-cram-cache")).unwrap();
    for name in ["linked", "tagged"] {
        let cache = folder.path().join(name);
        let error = refused(&["qemu", "--offline", "--cache-dir", cache.to_str().unwrap(), "--", "--version"]);
        assert!(error.contains("nor a cache of cxl-cram"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("precious")).unwrap(), "years");
    assert!(!folder.path().join("victim").exists());
    let tag = std::fs::read_to_string(folder.path().join("tagged/CACHEDIR.TAG")).unwrap();
    assert_eq!(tag, "Signature: another program's");
}

#[test]
fn closed_or_full_output_does_not_panic() {
    for (script, code) in [("\"$0\" list | true; exit ${PIPESTATUS[0]}", 0), ("\"$0\" list > /dev/full", 1)] {
        let program = env!("CARGO_BIN_EXE_cxl-cram-harness");
        let output = Command::new("bash").args(["-c", script, program]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!error.contains("panicked"), "{error}");
        assert_eq!(output.status.code(), Some(code), "{script}: {error}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("artifacts");
    for report in [folder.path().to_str().unwrap(), "/etc/hostname/report.json"] {
        let output = harness(&["run", "--report-json", report, "--artifacts", artifacts.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("the report"));
        assert!(!artifacts.exists());
    }
}
