//! Reports through their public face: a record in, files out.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use cxl_cram_lab::{
    record::{
        cases::{Case, CaseResult},
        facts::{Facts, Figure},
        timeline::{Mark, Sample, Timeline},
    },
    report::{self, Counts, Formats, Outcome, Record, Verdict, chart, merge, read, table, write},
};
use quick_junit::TestCaseStatus;
use serde_json::json;

/// What would break out of markup, XML or a KTAP line if it could.
const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{1b}[31m ]]> # SKIP\nok 7 forged\u{0}";

fn outcome(name: &str, verdict: Verdict) -> Outcome {
    let mut facts = Facts::default();
    facts.push("node", json!({"online": true, "cpus": []}));
    facts.push("node", json!(1));
    Outcome {
        name: name.to_owned(),
        story: "a node is made and goes away".to_owned(),
        kernel: "6.12.117".to_owned(),
        verdict,
        host_at_fault: false,
        seconds: 4.2,
        facts,
        difference: None,
        figures: vec![Figure { name: "ratio".to_owned(), value: "2.5".to_owned() }],
        cases: Vec::new(),
        timeline: timeline(),
        console: vec!["[    1.0] cxl_mem mem0: ready".to_owned()],
        artifacts: PathBuf::from("/artifacts").join(name),
        files: vec!["console.log".to_owned(), "qemu #1.sh".to_owned()],
    }
}

/// Ten seconds on two devices; the second dies after four and comes back after eight.
fn timeline() -> Timeline {
    let sample = |second: u64| Sample {
        at_ms: second * 1000,
        physical: 64 << 20,
        used: second << 22,
        low_watermark: 8 << 20,
        high_watermark: 16 << 20,
        resident: 32 << 20,
        blocked: second > 6,
        faults: second * second,
        low_crossings: u64::from(second > 6),
        interrupts: BTreeMap::from([(12, second / 7)]),
        ..Sample::default()
    };
    let mark = |second: u64, step: &str| Mark { at_ms: second * 1000, step: step.to_owned() };
    Timeline {
        acts: Vec::new(),
        marks: vec![mark(1, "create the region"), mark(2, "online it"), mark(6, "write <4 GiB>")],
        devices: vec![(0..=10).map(sample).collect(), [0, 1, 2, 3, 4, 8, 9, 10].map(sample).into()],
        series: BTreeMap::from([("pressure".to_owned(), vec![(1000, 0.0), (9000, 0.7)])]),
    }
}

fn record(scenarios: Vec<Outcome>) -> Record {
    Record::new(scenarios, Duration::from_millis(12_300), vec!["QEMU 11.1.3, with TCG".to_owned()])
}

fn case(name: &str, result: CaseResult) -> Case {
    Case { name: name.to_owned(), result, note: name.to_owned() }
}

/// A selftest with these cases.
fn selftest(name: &str, cases: &[(&str, CaseResult)]) -> Outcome {
    let cases = cases.iter().map(|(name, result)| case(name, *result)).collect();
    Outcome { cases, ..outcome(name, Verdict::Passed) }
}

#[test]
fn the_cases_of_a_selftest_are_nested_in_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [("base page", CaseResult::Passed), ("huge page", CaseResult::Skipped), ("swap", CaseResult::Failed)];
    let [json, _, ktap, html] = reports(&record(vec![selftest("mm:cow", &cases)]), folder.path());
    let nested =
        "  KTAP version 1\n  1..3\n  ok 1 base page\n  ok 2 huge page # SKIP huge page\n  not ok 3 swap\nok 1 mm:cow\n";
    assert!(ktap.ends_with(nested), "{ktap}");
    assert!(html.contains("Cases: 1 passed, 1 failed, 1 skipped") && html.contains("End of the output"));
    assert!(json.contains(r#""name":"huge page","result":"skipped""#), "{json}");
    assert!(!reports(&mixed(), folder.path())[0].contains("cases"), "a scenario has none");
}

#[test]
fn cases_that_differ_between_two_kernels_are_rows_of_the_table() {
    let with = [("a", CaseResult::Passed), ("b", CaseResult::Passed), ("d", CaseResult::Skipped)];
    let without = [("a", CaseResult::Passed), ("b", CaseResult::Failed), ("c", CaseResult::Passed)];
    let columns = [("with", &with), ("without", &without)];
    let columns = columns.map(|(head, cases)| (head.to_owned(), record(vec![selftest("mm:cow", cases)])));
    let text = table(&columns);
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| mm:cow")).collect();
    let expected = [
        "| mm:cow | passed: 2, 0, 1 | passed: 2, 1, 0 |",
        "| mm:cow: b | passed | **failed** |",
        "| mm:cow: c |  | passed |",
        "| mm:cow: d | skipped |  |",
    ];
    assert_eq!(rows, expected, "{text}");
}

/// Every report of a record, by its file name.
fn reports(record: &Record, folder: &Path) -> [String; 4] {
    let names = ["record.json", "junit.xml", "results.ktap", "report.html"];
    let [json, junit, ktap, html] = names.map(|name| Some(folder.join(name)));
    write(record, &Formats { json, junit, ktap, html }).unwrap();
    names.map(|name| fs::read_to_string(folder.join(name)).unwrap())
}

fn mixed() -> Record {
    let mut failed = outcome("demote", Verdict::Failed("the facts differ\nreally".to_owned()));
    failed.difference = Some("--- snapshot\n+++ this run\n@@ -1 +1 @@\n-demoted: 4\n+demoted: 0\n".to_owned());
    let skipped = outcome("mce", Verdict::Skipped("the guest lacks CONFIG_X86_MCE".to_owned()));
    record(vec![outcome("enumerate", Verdict::Passed), failed, skipped])
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/record.json");
    let record = mixed();
    write(&record, &Formats { json: Some(path.clone()), ..Formats::default() }).unwrap();
    let mut back = read(&path).unwrap();
    for (back, scenario) in back.scenarios.iter_mut().zip(&record.scenarios) {
        // Through the folder of the record and up again.
        assert!(back.artifacts.ends_with(Path::new("artifacts").join(&scenario.name)), "{:?}", back.artifacts);
        back.artifacts = scenario.artifacts.clone();
    }
    assert_eq!(back, record);
}

#[test]
fn a_record_that_moved_together_with_its_artifacts_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = outcome("enumerate", Verdict::Passed);
    one.artifacts = folder.path().join("a/enumerate");
    let json = Some(folder.path().join("a/record.json"));
    write(&record(vec![one]), &Formats { json, ..Formats::default() }).unwrap();
    fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    let moved = read(&folder.path().join("b/record.json")).unwrap();
    assert_eq!(moved.scenarios[0].artifacts, folder.path().join("b/enumerate"));
}

#[test]
fn what_is_not_a_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    assert!(read(&path).is_err());
    fs::write(&path, "{}").unwrap();
    assert!(read(&path).is_err());
    let other = Record { format: 99, ..mixed() };
    write(&other, &Formats { json: Some(path.clone()), ..Formats::default() }).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("format 99"));
}

#[test]
fn merging_keeps_every_scenario_and_of_repeated_ones_the_worst() {
    let failed = outcome("region", Verdict::Failed("once".to_owned()));
    let mut other_kernel = outcome("region", Verdict::Passed);
    other_kernel.kernel = "7.2.12".to_owned();
    let merged = merge([
        record(vec![outcome("region", Verdict::Passed), outcome("online", Verdict::Passed)]),
        record(vec![failed.clone(), other_kernel]),
        record(vec![outcome("region", Verdict::Passed)]),
    ]);
    assert_eq!(merged.counts(), Counts { passed: 2, failed: 1, ..Counts::default() });
    assert_eq!(merged.scenarios[0], failed);
    assert_eq!(merged.about.len(), 1);
    assert_eq!(merged.notes, ["region ran 3 times on 6.12.117; the worst outcome is kept"]);
    assert!(merged.failed() && !merge([]).failed());
}

#[test]
fn junit_has_a_case_for_each_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let [_, junit, ..] = reports(&mixed(), folder.path());
    let report = quick_junit::Report::deserialize_from_str(&junit).unwrap();
    assert_eq!((report.tests, report.failures), (3, 1));
    let cases = &report.test_suites[0].test_cases;
    assert!(matches!(cases[0].status, TestCaseStatus::Success { .. }));
    let TestCaseStatus::NonSuccess { message, description, .. } = &cases[1].status else { panic!("{:?}", cases[1]) };
    assert_eq!(message.as_ref().unwrap().as_str(), "the facts differ");
    assert!(description.as_ref().unwrap().as_str().contains("+demoted: 0"));
    let TestCaseStatus::Skipped { message, .. } = &cases[2].status else { panic!("{:?}", cases[2]) };
    assert_eq!(message.as_ref().unwrap().as_str(), "the guest lacks CONFIG_X86_MCE");
}

#[test]
fn ktap_has_a_plan_numbers_and_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let [_, _, ktap, _] = reports(&mixed(), folder.path());
    let lines: Vec<_> = ktap.lines().collect();
    assert_eq!(lines[..2], ["KTAP version 1", "1..3"]);
    let results: Vec<_> = lines[2..].iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(results, [&"ok 1 enumerate", &"not ok 2 demote", &"ok 3 mce # SKIP the guest lacks CONFIG_X86_MCE"]);
    let failed = lines.iter().position(|line| line.starts_with("not ok")).unwrap();
    assert_eq!(lines[failed - 1], "# +demoted: 0");
}

#[test]
fn the_page_tells_failures_first_and_marks_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let [.., html] = reports(&mixed(), folder.path());
    let place = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(place(">demote</a>") < place(">enumerate</a>"));
    assert!(place("1 passed, 1 failed, 1 skipped") < place("<table"));
    for text in
        ["write &lt;4 GiB&gt;", "class=\"stepline\"", "<h3>Device 1</h3>", ">pressure</text>", ">lthresh</text>"]
    {
        place(text);
    }
    assert!(html.contains("<span class=\"add\">+demoted: 0</span>"));
    assert!(html.contains("qemu%20%231.sh\">qemu #1.sh</a>"));
    assert!(html.contains("<title>1 s\nused 4 MiB of 64 MiB"), "a hover has a line for each group of figures");
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_device_that_was_gone_leaves_a_gap_in_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |devices: Vec<Vec<Sample>>| {
        let mut one = outcome("killed", Verdict::Passed);
        one.timeline.devices = devices;
        let [.., html] = reports(&record(vec![one]), folder.path());
        html.matches("class=\"limit\"").count()
    };
    let [whole, broken] = [0, 1].map(|device| timeline().devices[device].clone());
    assert_eq!((lines(vec![whole]), lines(vec![broken])), (2, 4), "for a wide and a narrow page");
}

#[test]
fn two_acts_stand_side_by_side_on_the_same_scales() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = outcome("bear", Verdict::Passed);
    let act = |second: u64, step: &str| Mark { at_ms: second * 1000, step: step.to_owned() };
    one.timeline.acts = vec![act(1, "a <plain> node"), act(7, "guarded")];
    one.timeline.marks[2].at_ms = 8000;
    one.timeline.series.insert("pages: demoted".to_owned(), vec![(2000, 1.0), (9500, 4.0)]);
    one.timeline.series.insert("pages: promoted".to_owned(), vec![(9500, 2.0)]);
    let second = one.timeline.act(1).unwrap();
    assert_eq!(second.devices[0].iter().map(|sample| sample.at_ms).collect::<Vec<_>>(), [0, 1000, 2000, 3000]);
    assert_eq!(second.series["pages: demoted"], [(2500, 4.0)]);
    let record = record(vec![one, outcome("whole", Verdict::Passed)]);
    let [.., html] = reports(&record, folder.path());
    for text in ["a &lt;plain&gt; node</h3>", "guarded</h3>", ">promoted</tspan>"] {
        assert!(html.contains(text), "no {text}");
    }
    // Each act has its own list, with the numbers and the times of its chart.
    let left = html.find("a &lt;plain&gt; node</h3>").unwrap();
    let right = html.find("guarded</h3>").unwrap();
    let whole = html.find("seconds since the device started").unwrap();
    for (step, side) in [
        ("0.0 s</span> create the region", left..right),
        ("1.0 s</span> online it", left..right),
        ("1.0 s</span> write", right..whole),
    ] {
        assert!(side.contains(&html.find(step).unwrap()), "{step}");
    }

    let drawn = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let path = folder.path().join("chart.svg");
        chart(&record, &names, &path).map(|()| fs::read_to_string(&path).unwrap())
    };
    let svg = drawn(&["bear"]).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("class=\"limit\"").count(), 2);
    // What only one has is there in both, empty: the two are compared panel by panel.
    assert_eq!(svg.matches(">1000 pages a second</text>").count(), 2);
    assert_eq!(svg.matches(">lthresh</text>").count(), 2);
    assert_eq!(drawn(&["bear/2"]).unwrap().matches("class=\"limit\"").count(), 1);
    assert_eq!(drawn(&["whole", "bear/1"]).unwrap().matches("class=\"limit\"").count(), 2);
    for wrong in [&["bear/3"][..], &["bear/0"], &["bear/x"], &["nobody"], &["bear", "whole"]] {
        assert!(drawn(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_narrow_page_stacks_acts() {
    let folder = tempfile::tempdir().unwrap();
    let [.., html] = reports(&mixed(), folder.path());
    let narrow = html.split("@media screen and (max-width: 720px)").last().unwrap();
    assert!(narrow.contains(".panels { grid-template-columns: minmax(0, 1fr); }"));
}

#[test]
fn what_was_interrupted_is_counted_by_itself_and_makes_no_run_green() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = record(vec![outcome("region", Verdict::Passed), outcome("online", Verdict::Interrupted)]);
    assert!(stopped.failed());
    assert_eq!(stopped.counts().to_string(), "1 passed, 0 failed, 0 skipped, 1 interrupted");
    let [json, junit, ktap, html] = reports(&stopped, folder.path());
    assert!(json.contains(r#""verdict":"interrupted""#));
    assert_eq!(read(&folder.path().join("record.json")).unwrap().scenarios[1].verdict, Verdict::Interrupted);
    assert_eq!(quick_junit::Report::deserialize_from_str(&junit).unwrap().failures, 0);
    assert!(ktap.contains("ok 2 online # SKIP interrupted"));
    assert!(html.contains(">interrupted</span>"));
    let worst = merge([stopped, record(vec![outcome("online", Verdict::Passed)])]);
    assert_eq!(worst.counts().interrupted, 1, "what passed once and was stopped once did not pass");
}

#[test]
fn a_run_is_the_hosts_fault_only_if_every_failure_is() {
    let failed =
        |name: &str, host_at_fault| Outcome { host_at_fault, ..outcome(name, Verdict::Failed("it did".to_owned())) };
    assert!(record(vec![failed("region", true), outcome("online", Verdict::Passed)]).host_at_fault());
    assert!(!record(vec![failed("region", true), failed("online", false)]).host_at_fault());
    assert!(!record(vec![outcome("online", Verdict::Passed)]).host_at_fault());
    assert!(!record(Vec::new()).host_at_fault());
}

#[test]
fn the_record_on_one_line_has_all_that_a_file_has() {
    let record = mixed();
    let line: serde_json::Value = serde_json::from_str(&report::json(&record).unwrap()).unwrap();
    assert_eq!((&line["seconds"], &line["about"][0]), (&json!(12.3), &json!("QEMU 11.1.3, with TCG")));
    assert_eq!(line["scenarios"].as_array().unwrap().len(), 3);
}

#[test]
fn hostile_text_stays_text_in_every_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut hostile = outcome(HOSTILE, Verdict::Failed(HOSTILE.to_owned()));
    hostile.story = HOSTILE.to_owned();
    hostile.kernel = HOSTILE.to_owned();
    hostile.difference = Some(format!("+{HOSTILE}"));
    hostile.figures = vec![Figure { name: HOSTILE.to_owned(), value: HOSTILE.to_owned() }];
    hostile.console = vec![HOSTILE.to_owned()];
    hostile.cases = vec![case(HOSTILE, CaseResult::Failed), case(HOSTILE, CaseResult::Skipped)];
    hostile.files = vec![HOSTILE.to_owned()];
    hostile.timeline.marks[0].step = HOSTILE.to_owned();
    hostile.timeline.series.insert(HOSTILE.to_owned(), vec![(0, f64::MAX), (u64::MAX, -1.0)]);
    hostile.timeline.devices[0][3] = Sample { at_ms: u64::MAX, used: u64::MAX, faults: u64::MAX, ..Sample::default() };
    hostile.seconds = f64::MAX;
    let record = Record {
        begun: u64::MAX,
        about: vec![HOSTILE.to_owned()],
        notes: vec![HOSTILE.to_owned()],
        ..record(vec![hostile, outcome("mce", Verdict::Skipped(HOSTILE.to_owned()))])
    };
    let [json, junit, ktap, html] = reports(&record, folder.path());
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    assert!(!html.contains("<script") && !html.contains('\u{1b}') && !html.contains('\0'));
    let report = quick_junit::Report::deserialize_from_str(&junit).unwrap();
    assert_eq!((report.tests, report.failures), (2, 1));
    let results = ktap.lines().filter(|line| line.starts_with("ok") || line.starts_with("not ok"));
    assert_eq!(results.count(), 2, "{ktap}");
    assert!(ktap.lines().all(|line| line.matches("# SKIP").count() <= 1 || line.starts_with('#')), "{ktap}");
}

#[test]
fn a_pipe_is_written_to_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // Both ends in this process, so that a report that goes elsewhere fails the test instead of hanging it.
    let mut reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    write(&mixed(), &Formats { ktap: Some(pipe.clone()), ..Formats::default() }).unwrap();
    assert!(!fs::metadata(&pipe).unwrap().is_file());
    let mut text = [0; 14];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"KTAP version 1");
}

#[test]
fn an_empty_record_makes_reports_too() {
    let folder = tempfile::tempdir().unwrap();
    let [_, junit, ktap, html] = reports(&record(Vec::new()), folder.path());
    assert!(quick_junit::Report::deserialize_from_str(&junit).is_ok());
    assert_eq!(ktap, "KTAP version 1\n1..0\n");
    assert!(html.contains("No scenario was played"));
}

#[test]
fn runs_on_several_kernels_are_columns_and_each_reason_stands_once_below() {
    let run = |verdicts: &[(&str, Verdict)]| {
        let outcomes = verdicts.iter().map(|(name, verdict)| outcome(name, verdict.clone())).collect();
        Record::new(outcomes, Duration::ZERO, Vec::new())
    };
    let lacks = Verdict::Skipped("the guest lacks CRAM".to_owned());
    let columns = [
        ("6.12".to_owned(), run(&[("online", Verdict::Passed), ("cram_bear", Verdict::Passed)])),
        ("stock".to_owned(), run(&[("cram_bear", lacks.clone()), ("cram_two", lacks), ("online", Verdict::Passed)])),
        ("mine | <b>".to_owned(), run(&[("online", Verdict::Failed(format!("wrong {HOSTILE}")))])),
    ];
    let text = table(&columns);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "| | 6.12 | stock | mine \\| \\<b\\> |");
    assert_eq!(lines[2], "| cram\\_bear | passed | skipped (1) |  |");
    assert_eq!(lines[3], "| cram\\_two |  | skipped (1) |  |");
    assert_eq!(lines[4], "| online | passed | passed | **failed** (2) |");
    assert_eq!(lines[5], "| **passed, failed, skipped** | 2, 0, 0 | 1, 0, 2 | 0, 1, 0 |");
    assert_eq!(lines[7], "1. the guest lacks CRAM");
    assert_eq!(lines.len(), 9, "{text}");
    assert!(!lines[8].contains("<script>") && lines[8].starts_with("2. wrong "), "{text}");
}
