//! JUnit XML, for CI systems: a suite for each kernel, a case for each scenario.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::DateTime;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Outcome, Record, Verdict};

/// The record as JUnit XML.
pub(super) fn text(record: &Record) -> Result<String> {
    let mut report = Report::new("cxl-cram");
    report.set_time(record.elapsed());
    if let Some(begun) = i64::try_from(record.begun).ok().and_then(|begun| DateTime::from_timestamp(begun, 0)) {
        report.set_timestamp(begun);
    }
    for kernel in record.kernels() {
        let mut suite = TestSuite::new(format!("Linux {kernel}"));
        suite
            .set_time(record.scenarios.iter().filter(|one| one.kernel == kernel).map(|one| seconds(one.seconds)).sum());
        suite.add_test_cases(record.scenarios.iter().filter(|one| one.kernel == kernel).map(case));
        report.add_test_suite(suite);
    }
    report.to_string().context("cannot make XML of the outcomes")
}

fn case(outcome: &Outcome) -> TestCase {
    let status = match &outcome.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped(reason) => skipped(reason),
        Verdict::Interrupted => skipped("interrupted"),
        Verdict::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.lines().next().unwrap_or_default());
            let difference = outcome.difference.as_deref().unwrap_or_default();
            status.set_description(format!("{reason}\n{difference}"));
            status
        }
    };
    let mut case = TestCase::new(outcome.name.as_str(), status);
    case.set_classname("cxl-cram").set_time(seconds(outcome.seconds));
    case.add_property(("story", outcome.story.as_str()));
    for figure in &outcome.figures {
        case.add_property((figure.name.as_str(), figure.value.as_str()));
    }
    case.set_system_out(outcome.console.join("\n"));
    case
}

fn skipped(reason: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(reason);
    status
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
