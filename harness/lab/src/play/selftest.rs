//! Plays the selftests of a kernel tree: each test on its own, on a guest that lasts for a collection.
//!
//! A test has the verdict of its exit code, as kselftest has it, and the results of its cases. A guest that a test crashes or
//! hangs ends with that test; the next one gets a new guest, with new devices.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use cxl_cram_kit::size::format_bytes;
use cxl_cram_wire::protocol::Exit;
use indicatif::{MultiProgress, ProgressBar};

use super::artifacts;
use super::runner::spinner;
use crate::guest::client::GuestError;
use crate::health::Trouble;
use crate::lab::Lab;
use crate::lab::kselftest::{DeviceAs, TestEnd};
use crate::lab::scenario::Scenario;
use crate::process::interrupt::interrupted;
use crate::provision::{Provisioned, Selftest, Unbuilt};
use crate::record::cases::{Case, CaseCounts, CaseReader, CaseResult};
use crate::record::facts::Figure;
use crate::report::{Outcome, Verdict};
use crate::rig::shape::{DeviceShape, MachineShape};
use crate::rig::stage::{Overrides, ended, host_at_fault};

/// The devices and the machine. There are two devices, of which tests get the first, because `migration` of Linux 6.12 does not
/// look at the last possible node; it wants four processors, too. The disk gets the file system that tests run on.
pub(crate) static STAGE: Scenario = Scenario {
    name: "selftest",
    devices: &[
        DeviceShape::USUAL,
        DeviceShape {
            capacity: 256 << 20,
            physical: 64 << 20,
            cache: 32 << 20,
            more: &["--serial", "0x2222"],
            ..DeviceShape::USUAL
        },
    ],
    machine: MachineShape { memory_mib: 1536, processors: 4, scratch_mib: Some(512), ..MachineShape::USUAL },
    ..Scenario::USUAL
};
/// kselftest's exit code of a test that skips.
const SKIP: i32 = 4;
/// The last lines of a test's output that a report shows.
const SHOWN: usize = 200;
/// Failed cases that a reason names.
const NAMED: usize = 5;
/// The most of a test's output that is kept, bytes.
const MOST_OUTPUT: u64 = 64 << 20;

/// How to play selftests.
#[derive(Debug)]
pub(crate) struct SelftestOptions {
    /// The user's changes to the machine.
    pub(crate) overrides: Overrides,
    /// The folder for the folders of guests.
    pub(crate) artifacts: PathBuf,
    /// The user's limit for each test.
    pub(crate) limit: Option<Duration>,
    /// The factor by which the tests' own limits are extended.
    pub(crate) patience: u32,
    /// Whether tests take memory from the device first.
    pub(crate) prefer_device: bool,
}

/// The tests of one collection.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// The collection.
    pub(crate) collection: &'a str,
    /// Its tests, in order.
    pub(crate) tests: Vec<Selftest>,
}

impl Part<'_> {
    /// The folder for the artifacts of guest number `number`, from 1.
    pub(crate) fn folder(&self, number: usize) -> String {
        format!("selftest-{}-{number}", plain(self.collection))
    }
}

/// The outcome of a program that could not be played, because it was not built.
pub(crate) fn not_built(collection: &str, unbuilt: &Unbuilt, kernel: &str) -> Outcome {
    Outcome {
        kernel: kernel.to_owned(),
        verdict: Verdict::Skipped(format!("not built: {}", unbuilt.why)),
        ..outcome(collection, &unbuilt.name, "")
    }
}

/// Plays the tests of a collection in order, and passes each outcome to `over` as it arrives. Plays no further test after an
/// interruption, or after `over` breaks.
pub(crate) fn play_part(
    part: &Part,
    provisioned: &Provisioned,
    options: &SelftestOptions,
    progress: &MultiProgress,
    mut over: impl FnMut(&Outcome) -> ControlFlow<()>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut guest: Option<Guest> = None;
    let mut number = 0;
    for test in &part.tests {
        let bar = spinner(&format!("{}:{}", part.collection, test.name), progress);
        let begun = Instant::now();
        let mut now =
            Outcome { kernel: provisioned.kernel.version.clone(), ..outcome(part.collection, &test.name, &test.line) };
        let running = match guest.take() {
            Some(running) => Ok(running),
            None => {
                number += 1;
                let folder = options.artifacts.join(part.folder(number));
                now.artifacts.clone_from(&folder);
                Guest::start(part.collection, provisioned, options, folder, &bar)
            }
        };
        let came_up = running.is_ok();
        match running {
            Ok(running) => guest = running.play(part.collection, test, options, &mut now),
            Err(NoGuest { error, host_at_fault }) => {
                now.host_at_fault = host_at_fault;
                now.verdict = Verdict::Failed(format!("{error:#}"));
            }
        }
        bar.finish_and_clear();
        if interrupted() {
            now.verdict = Verdict::Interrupted;
        }
        now.files = artifacts::files(&now.artifacts);
        now.seconds = begun.elapsed().as_secs_f64();
        let goes_on = over(&now).is_continue() && came_up && !interrupted();
        outcomes.push(now);
        if !goes_on {
            break;
        }
    }
    if let Some(guest) = guest {
        guest.lab.take_down(Ok(()));
    }
    outcomes
}

/// An outcome before anything was played.
fn outcome(collection: &str, name: &str, line: &str) -> Outcome {
    Outcome { name: format!("{collection}:{name}"), story: line.to_owned(), ..Outcome::of(&STAGE) }
}

/// Why there is no guest to play tests.
struct NoGuest {
    error: anyhow::Error,
    /// Whether this machine is at fault, not the guest's kernel.
    host_at_fault: bool,
}

/// A guest that plays tests.
struct Guest {
    lab: Lab,
    folder: PathBuf,
    /// The device's node, for tests that take memory from it first.
    node: Option<u32>,
}

impl Guest {
    fn start(
        collection: &str,
        provisioned: &Provisioned,
        options: &SelftestOptions,
        folder: PathBuf,
        bar: &ProgressBar,
    ) -> Result<Self, NoGuest> {
        let set_up = artifacts::claim_empty(&folder)
            .map_err(anyhow::Error::from)
            .and_then(|()| Lab::set_up(&STAGE, &options.overrides, provisioned, &folder, bar));
        let mut lab = set_up.map_err(|error| NoGuest {
            host_at_fault: host_at_fault(&error),
            error: error.context("the guest did not come up"),
        })?;
        match lab.prepare_selftests(DeviceAs::of(collection)) {
            Ok(node) => {
                lab.next_recording();
                Ok(Self { lab, folder, node: node.filter(|_| options.prefer_device) })
            }
            Err(error) => {
                let device = ended(&mut lab.devices);
                let host_at_fault = device.is_some();
                let error = device.map_or(error, |ended| anyhow!(ended)).context("cannot prepare the guest");
                let _ = lab.take_down(Ok(()));
                Err(NoGuest { error, host_at_fault })
            }
        }
    }

    /// Plays a test. Returns the guest if it can play another.
    fn play(mut self, collection: &str, test: &Selftest, options: &SelftestOptions, now: &mut Outcome) -> Option<Self> {
        now.kernel.clone_from(&self.lab.kernel);
        now.artifacts.clone_from(&self.folder);
        let limit = options.limit.unwrap_or(test.limit.saturating_mul(options.patience));
        let warned = self.lab.machine.troubles().len();
        let mut output = Output::new(&self.folder, &test.name);
        self.lab.step(&test.name);
        let end = self.lab.play_selftest(collection, &test.line, self.node, limit, |line| output.line(line));
        now.timeline = self.lab.next_recording();
        let most = now.timeline.devices.first().and_then(|samples| samples.iter().map(|sample| sample.used).max());
        let file = output.finish(now);
        let troubles = self.lab.machine.troubles();
        for Trouble { line, .. } in troubles.iter().skip(warned) {
            now.figures.push(Figure { name: "kernel".to_owned(), value: line.clone() });
        }
        if let Some(most) = most {
            now.figures.push(Figure { name: "media used".to_owned(), value: format_bytes(most) });
        }
        let limit = limit.as_secs();
        match end {
            Ok(TestEnd::Stuck) => {
                let watched = self.lab.watched();
                let probe = watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                let place = probe.diagnose_and_kill();
                now.verdict = Verdict::Failed(format!(
                    "took longer than {limit} s, its limit, and does not end when killed; the guest is restarted\n{place}"
                ));
                let _ = self.lab.take_down(Ok(()));
                None
            }
            Ok(end) => {
                now.verdict = verdict(end, limit, &now.cases, file.skipped.as_deref(), file.last.as_deref());
                Some(self)
            }
            Err(error) => {
                let device = ended(&mut self.lab.devices);
                now.host_at_fault = device.is_some();
                let why = device.unwrap_or_else(|| match error.downcast_ref() {
                    Some(GuestError::Died { report, .. }) => report.to_string(),
                    _ => format!("{error:#}"),
                });
                now.verdict = Verdict::Failed(format!("the guest ended during the test, and is restarted: {why}"));
                let _ = self.lab.take_down(Ok(()));
                None
            }
        }
    }
}

/// A test's output on its way to a file and to the cases.
struct Output {
    file: Option<BufWriter<File>>,
    written: u64,
    reader: CaseReader,
    shown: std::collections::VecDeque<String>,
}

/// What the end of the output says.
struct Said {
    skipped: Option<String>,
    last: Option<String>,
}

impl Output {
    /// Output that is kept as `NAME.log`. Where it cannot be written, it is only read.
    fn new(folder: &Path, name: &str) -> Self {
        let file = File::create(folder.join(format!("{}.log", plain(name)))).context("cannot keep the output");
        let file = file.inspect_err(|error| tracing::warn!("{error:#}")).ok();
        Self { file: file.map(BufWriter::new), written: 0, reader: CaseReader::default(), shown: Default::default() }
    }

    fn line(&mut self, line: &str) {
        self.reader.line(line);
        if self.shown.len() == SHOWN {
            self.shown.pop_front();
        }
        self.shown.push_back(line.to_owned());
        self.written += line.len() as u64 + 1;
        if self.written <= MOST_OUTPUT
            && let Some(file) = &mut self.file
        {
            let _ = writeln!(file, "{line}");
        }
    }

    /// Puts cases and last lines into the outcome.
    fn finish(mut self, now: &mut Outcome) -> Said {
        if let Some(file) = &mut self.file {
            let _ = file.flush();
        }
        let said = Said {
            skipped: self.reader.skipped().map(str::to_owned),
            last: self.shown.iter().rev().find(|line| !line.trim().is_empty()).cloned(),
        };
        now.cases = self.reader.cases();
        now.console = self.shown.into();
        if !now.cases.is_empty() {
            let counts = CaseCounts::of(&now.cases).to_string();
            now.figures.push(Figure { name: "cases".to_owned(), value: counts });
        }
        said
    }
}

/// The verdict of a test, by its exit code as kselftest has it.
fn verdict(end: TestEnd, limit: u64, cases: &[Case], skipped: Option<&str>, last: Option<&str>) -> Verdict {
    let failed: Vec<&str> =
        cases.iter().filter(|case| case.result == CaseResult::Failed).map(|case| case.name.as_str()).collect();
    let named = match failed.as_slice() {
        [] => last.map(|line| format!("; its last line: {}", line.trim())).unwrap_or_default(),
        names => {
            let more = if names.len() > NAMED { format!(", and {} more", names.len() - NAMED) } else { String::new() };
            let shown = names[..names.len().min(NAMED)].join(", ");
            format!("; {} of {} cases failed: {shown}{more}", names.len(), cases.len())
        }
    };
    let passed = cases.iter().any(|case| case.result == CaseResult::Passed);
    match end {
        TestEnd::Exited(Exit::Code(0)) if !failed.is_empty() => Verdict::Failed(format!("exit code 0{named}")),
        // A script that plays several programs ends with it when one of them has skipped.
        TestEnd::Exited(Exit::Code(SKIP)) if failed.is_empty() && passed => Verdict::Passed,
        TestEnd::Exited(Exit::Code(0)) if passed || skipped.is_none() => Verdict::Passed,
        TestEnd::Exited(Exit::Code(0 | SKIP)) => {
            let note = cases.iter().find(|case| !case.note.is_empty()).map(|case| case.note.as_str());
            let why = skipped.filter(|why| !why.is_empty()).or(note).or(last).unwrap_or("it does not say why");
            Verdict::Skipped(why.trim().to_owned())
        }
        TestEnd::Exited(Exit::Code(code)) => Verdict::Failed(format!("exit code {code}{named}")),
        TestEnd::Exited(Exit::Signal(signal)) => Verdict::Failed(format!("ended by signal {signal}{named}")),
        TestEnd::Late | TestEnd::Stuck => {
            Verdict::Failed(format!("took longer than {limit} s, its limit, and was killed{named}"))
        }
    }
}

/// A name without what a file's name cannot have.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+=".contains(c) { c } else { '-' };
    name.chars().take(80).map(plain).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn case(name: &str, result: CaseResult) -> Case {
        Case { name: name.to_owned(), result, note: String::new() }
    }

    fn exited(code: i32, cases: &[Case], skipped: Option<&str>, last: Option<&str>) -> Verdict {
        verdict(TestEnd::Exited(Exit::Code(code)), 45, cases, skipped, last)
    }

    #[test]
    fn the_exit_code_decides_and_the_reason_names_failed_cases() {
        let cases = [case("a", CaseResult::Passed), case("b", CaseResult::Failed)];
        assert_eq!(exited(0, &cases[..1], None, None), Verdict::Passed);
        let failed = |reason: &str| Verdict::Failed(reason.to_owned());
        assert_eq!(exited(1, &cases, None, Some("# Totals")), failed("exit code 1; 1 of 2 cases failed: b"));
        assert_eq!(
            exited(127, &[], None, Some("sh: ./x: not found")),
            failed("exit code 127; its last line: sh: ./x: not found")
        );
        assert_eq!(exited(0, &cases, None, None), failed("exit code 0; 1 of 2 cases failed: b"));
        let killed = verdict(TestEnd::Late, 45, &[], None, None);
        assert_eq!(killed, failed("took longer than 45 s, its limit, and was killed"));
        let died = verdict(TestEnd::Exited(Exit::Signal(11)), 45, &[], None, None);
        assert_eq!(died, failed("ended by signal 11"));
        let many: Vec<_> = (0..9).map(|number| case(&number.to_string(), CaseResult::Failed)).collect();
        assert_eq!(exited(1, &many, None, None), failed("exit code 1; 9 of 9 cases failed: 0, 1, 2, 3, 4, and 4 more"));
    }

    #[test]
    fn a_test_that_skips_everything_is_skipped_with_its_reason() {
        let skipped = |reason: &str| Verdict::Skipped(reason.to_owned());
        assert_eq!(exited(4, &[], Some("no KSM"), Some("x")), skipped("no KSM"));
        assert_eq!(exited(0, &[], Some("no KSM"), None), skipped("no KSM"));
        assert_eq!(exited(4, &[], None, Some("  need root ")), skipped("need root"));
        let noted = Case { note: "no swap".into(), ..case("a", CaseResult::Skipped) };
        assert_eq!(exited(4, std::slice::from_ref(&noted), None, Some("# Totals")), skipped("no swap"));
        assert_eq!(exited(4, &[noted, case("b", CaseResult::Passed)], None, None), Verdict::Passed);
    }

    #[test]
    fn a_file_is_named_after_its_test() {
        assert_eq!(plain("ksm_tests -N -m 1"), "ksm_tests--N--m-1");
        assert_eq!(plain("../net/lib"), "..-net-lib");
    }
}
