//! The command line without a guest: what is listed, generated and refused.

use std::process::{Command, Output};

use cxl_cram_harness::scenario::CATALOG;

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
fn every_scenario_is_listed_with_its_story_and_what_it_needs() {
    let listed: serde_json::Value = serde_json::from_str(&stdout(&["list", "--json"])).unwrap();
    let listed = listed["scenarios"].as_array().unwrap();
    assert_eq!(listed.len(), CATALOG.len());
    for scenario in CATALOG {
        let found = listed.iter().find(|listed| listed["name"] == scenario.name).unwrap();
        assert_eq!(found["story"], scenario.story);
        assert_eq!(found["only-by-name"], scenario.by_name);
        assert_eq!(found["needs"].as_array().unwrap().len(), scenario.needs.len());
    }
}

#[test]
fn the_parts_of_a_list_are_the_list() {
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
fn a_scenario_that_takes_minutes_is_played_only_by_its_whole_name() {
    let listed = |words: &[&str]| stdout(&[&["list", "--partition", "1/1"], words].concat());
    let soak = CATALOG.iter().find(|scenario| scenario.by_name).unwrap().name;
    assert!(!listed(&[]).contains(soak) && stdout(&["list"]).contains("only by its whole name"));
    assert!(!listed(&["cram"]).contains(soak));
    for words in [&[soak][..], &[&format!("={soak}")], &["--all"]] {
        assert!(listed(words).contains(soak), "{words:?}");
    }
    assert!(refused(&["run", &soak[..soak.len() - 1]]).contains("--all"));
}

#[test]
fn words_that_fit_no_scenario_are_named() {
    assert!(refused(&["run", "no-such-scenario"]).contains("no-such-scenario"));
    assert!(refused(&["list", "bear", "--skip", "bear"]).contains("bear, but not bear"));
    assert!(refused(&["boot", "--shape", "no-such-scenario"]).contains("no-such-scenario"));
    assert!(refused(&["run", "--partition", "3/2"]).contains("K/N"));
}

#[test]
fn every_command_has_a_page_and_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&["man", folder.path().to_str().unwrap()]);
    let bash = stdout(&["completions", "bash"]);
    for command in ["run", "list", "boot", "doctor", "kernel", "report", "acpi", "clean"] {
        let page = folder.path().join(format!("cxl-cram-harness-{command}.1"));
        assert!(page.is_file(), "{}", page.display());
        assert!(bash.contains(command), "{command}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Usage: cxl-cram-harness"), "{help}");
    }
}

#[test]
fn a_doctor_that_finds_an_empty_cache_and_no_network_says_no() {
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
fn a_record_that_is_none_is_refused_by_name() {
    assert!(refused(&["report", "merge", "/nonexistent/part.json"]).contains("/nonexistent/part.json"));
}
