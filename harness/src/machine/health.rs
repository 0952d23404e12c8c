//! What is known of a machine's life, shared by all who wait for something of it.
//! A wait that waits for what can no longer come must end at once and say why: [`Health::doomed`] wakes it, and
//! [`Health::report`] says what the console and QEMU said last.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::console::{Severity, Trouble};

/// Console lines kept for reports.
const KEPT_LINES: usize = 200;
/// Console lines in a report.
const REPORT_LINES: usize = 40;
/// The most troubles kept; a guest that warns for ever shall not fill the harness.
const KEPT_TROUBLES: usize = 100;
/// How long a report waits for what belongs to it: the rest of an oops, QEMU's exit.
const SETTLE: Duration = Duration::from_secs(1);

/// Shared knowledge of one machine.
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    doomed: Receiver<Infallible>,
}

#[derive(Debug)]
struct State {
    console: VecDeque<String>,
    troubles: Vec<Trouble>,
    /// A fatal trouble's last line has been seen.
    settled: bool,
    exit: Option<Exit>,
    /// Dropped to wake everybody.
    alive: Option<Sender<Infallible>>,
}

/// How QEMU ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// The end of what it wrote to standard error.
    pub stderr: String,
}

/// What there is to say about a machine when something failed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the guest kernel complained of.
    pub troubles: Vec<Trouble>,
    /// How QEMU ended, if it did.
    pub exit: Option<Exit>,
    /// The console's last lines.
    pub console: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        let (alive, doomed) = bounded(0);
        let state =
            State { console: VecDeque::new(), troubles: Vec::new(), settled: false, exit: None, alive: Some(alive) };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), doomed }))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Disconnected once the machine can do nothing more: QEMU has ended, or the kernel has a fatal trouble.
    pub fn doomed(&self) -> Receiver<Infallible> {
        self.0.doomed.clone()
    }

    /// A line from the console.
    pub(super) fn line(&self, line: &str) {
        let mut state = self.state();
        if state.console.len() == KEPT_LINES {
            state.console.pop_front();
        }
        state.console.push_back(line.to_owned());
    }

    /// The kernel complained.
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

    /// All that belongs to the fatal trouble has been said.
    pub(super) fn settled(&self) {
        self.state().settled = true;
        self.0.changed.notify_all();
    }

    /// QEMU ended.
    pub(super) fn exited(&self, exit: Exit) {
        let mut state = self.state();
        state.exit = Some(exit);
        state.alive = None;
        self.0.changed.notify_all();
    }

    /// What the kernel complained of so far.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.state().troubles.clone()
    }

    /// How QEMU ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.state().exit.clone()
    }

    /// Waits for QEMU's end.
    pub fn wait_exit(&self, limit: Duration) -> Option<Exit> {
        self.wait(limit, |state| state.exit.is_some()).exit.clone()
    }

    /// What there is to say now, about a machine that lives as far as one knows.
    pub fn report(&self) -> Report {
        let doomed = self.state().alive.is_none();
        self.report_within(if doomed { SETTLE } else { Duration::ZERO })
    }

    /// What there is to say about a machine that has hung up. It waits a moment for QEMU's exit, or for the oops to be
    /// whole.
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
            writeln!(f, "the guest kernel said: {}", trouble.line)?;
        }
        if let Some(exit) = &self.exit {
            writeln!(f, "QEMU ended: {}", exit.status)?;
            if !exit.stderr.trim().is_empty() {
                writeln!(f, "QEMU said: {}", exit.stderr.trim())?;
            }
        }
        if self.console.is_empty() {
            return write!(f, "the console is empty");
        }
        write!(f, "the end of the console:")?;
        self.console.iter().try_for_each(|line| write!(f, "\n    {line}"))
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
    fn a_warning_wakes_nobody_and_an_oops_everybody() {
        let health = Health::default();
        let doomed = health.doomed();
        health.trouble(trouble(Severity::Warning));
        assert_eq!(doomed.try_recv(), Err(TryRecvError::Empty));
        let waiter = thread::spawn(move || doomed.recv());
        health.trouble(trouble(Severity::Fatal));
        assert!(waiter.join().unwrap().is_err());
        assert_eq!(health.troubles().len(), 2);
    }

    #[test]
    fn a_report_has_the_end_of_the_console_and_qemus_last_words() {
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
