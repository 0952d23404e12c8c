//! The health of a machine, shared by everything that waits for it.
//!
//! A wait that can no longer succeed must end at once and give the reason: [`Health::machine_gone`] wakes it, and
//! [`Health::report`] has the last lines of the console and of QEMU.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// The severity of a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The kernel goes on.
    Warning,
    /// Results after this are meaningless.
    Fatal,
}

/// A complaint of the guest kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The severity.
    pub severity: Severity,
    /// The console line.
    pub line: String,
}

/// Console lines kept for reports.
const KEPT_LINES: usize = 200;
/// Console lines in a report.
const REPORT_LINES: usize = 40;
/// Console lines shown when there was no fatal trouble.
const SHOWN_LINES: usize = 10;
/// QEMU's message when the device does not answer.
const NO_ANSWER: &str = "timed out waiting for reply";
/// Maximum number of troubles kept: a guest may warn forever.
const KEPT_TROUBLES: usize = 100;
/// How long a report waits for QEMU's exit or the rest of an oops.
const SETTLE: Duration = Duration::from_secs(1);

/// The health of one machine. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    machine_gone: Receiver<Infallible>,
}

#[derive(Debug)]
struct State {
    console: VecDeque<String>,
    troubles: Vec<Trouble>,
    /// The last line of a fatal trouble has arrived.
    settled: bool,
    exit: Option<Exit>,
    /// Dropped to wake all waits.
    alive: Option<Sender<Infallible>>,
}

/// QEMU's exit.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit status.
    pub status: ExitStatus,
    /// The end of its standard error.
    pub stderr: String,
}

/// The state of a machine, for an error message.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The guest kernel's complaints.
    pub troubles: Vec<Trouble>,
    /// QEMU's exit, if it has exited.
    pub exit: Option<Exit>,
    /// The last console lines.
    pub console: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        let (alive, machine_gone) = bounded(0);
        let state =
            State { console: VecDeque::new(), troubles: Vec::new(), settled: false, exit: None, alive: Some(alive) };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), machine_gone }))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel that disconnects when QEMU has exited or the kernel has a fatal trouble.
    pub fn machine_gone(&self) -> Receiver<Infallible> {
        self.0.machine_gone.clone()
    }

    /// Records a console line.
    pub(super) fn line(&self, line: &str) {
        let mut state = self.state();
        if state.console.len() == KEPT_LINES {
            state.console.pop_front();
        }
        state.console.push_back(line.to_owned());
    }

    /// Records a complaint of the kernel. A fatal one wakes all waits.
    pub(super) fn trouble(&self, trouble: Trouble) {
        let mut state = self.state();
        if trouble.severity == Severity::Fatal {
            state.alive = None;
        }
        if state.troubles.len() < KEPT_TROUBLES {
            state.troubles.push(trouble);
        }
        self.0.changed.notify_all();
    }

    /// Records that a fatal trouble's last line has arrived.
    pub(super) fn settled(&self) {
        self.state().settled = true;
        self.0.changed.notify_all();
    }

    /// Records QEMU's exit and wakes all waits.
    pub(super) fn exited(&self, exit: Exit) {
        let mut state = self.state();
        state.exit = Some(exit);
        state.alive = None;
        self.0.changed.notify_all();
    }

    /// The kernel's complaints so far.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.state().troubles.clone()
    }

    /// QEMU's exit, if it has exited.
    pub fn exit(&self) -> Option<Exit> {
        self.state().exit.clone()
    }

    /// Waits until QEMU exits. Returns `None` at the limit.
    pub fn wait_exit(&self, limit: Duration) -> Option<Exit> {
        self.wait(limit, |state| state.exit.is_some()).exit.clone()
    }

    /// The current state. Waits for the rest of the output only if the machine is gone.
    pub fn report(&self) -> Report {
        let machine_gone = self.state().alive.is_none();
        self.report_within(if machine_gone { SETTLE } else { Duration::ZERO })
    }

    /// The state of a machine that has closed a connection. Waits up to 1 s for QEMU's exit or the end of the oops.
    pub fn post_mortem(&self) -> Report {
        self.report_within(SETTLE)
    }

    fn report_within(&self, limit: Duration) -> Report {
        let state = self.wait(limit, |state| state.exit.is_some() || state.settled);
        Report {
            troubles: state.troubles.clone(),
            exit: state.exit.clone(),
            console: state.console.iter().rev().take(REPORT_LINES).rev().cloned().collect(),
        }
    }

    fn wait(&self, limit: Duration, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while !until(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trouble in &self.troubles {
            writeln!(f, "the guest kernel reported: {}", trouble.line)?;
        }
        if let Some(exit) = &self.exit {
            writeln!(f, "QEMU exited: {}", exit.status)?;
            if !exit.stderr.trim().is_empty() {
                writeln!(f, "QEMU reported: {}", exit.stderr.trim())?;
            }
            if exit.stderr.contains(NO_ANSWER) {
                writeln!(f, "the device did not answer QEMU in time; its log may say why")?;
            }
        }
        if self.console.is_empty() {
            return write!(f, "the console is empty");
        }
        // An oops is shown whole.
        let fatal = self.troubles.iter().any(|trouble| trouble.severity == Severity::Fatal);
        let left_out = if fatal { 0 } else { self.console.len().saturating_sub(SHOWN_LINES) };
        write!(f, "the end of the console:")?;
        self.console.iter().skip(left_out).try_for_each(|line| write!(f, "\n    {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::thread;

    use crossbeam_channel::TryRecvError;

    use super::*;

    fn trouble(severity: Severity) -> Trouble {
        Trouble { severity, line: "BUG: here".into() }
    }

    #[test]
    fn only_a_fatal_trouble_wakes_waits() {
        let health = Health::default();
        let machine_gone = health.machine_gone();
        health.trouble(trouble(Severity::Warning));
        assert_eq!(machine_gone.try_recv(), Err(TryRecvError::Empty));
        let waiter = thread::spawn(move || machine_gone.recv());
        health.trouble(trouble(Severity::Fatal));
        assert!(waiter.join().unwrap().is_err());
        assert_eq!(health.troubles().len(), 2);
    }

    #[test]
    fn a_report_has_the_end_of_the_console_and_qemus_stderr() {
        let health = Health::default();
        (0..1000).for_each(|number| health.line(&format!("line {number}")));
        health.exited(Exit { status: ExitStatus::from_raw(1 << 8), stderr: "no such device\n".into() });
        let report = health.report();
        assert_eq!(report.console.len(), REPORT_LINES);
        let text = report.to_string();
        assert!(text.contains("no such device") && text.ends_with("line 999"), "{text}");
        assert!(text.contains("exit status: 1"));
    }
}
