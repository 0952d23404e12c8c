//! Runs one program of a step. Its output goes to a log and line by line to a callback, and it has time limits.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::child;
use super::interrupt::interrupted;
use super::tied;

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 20;
/// No sane program prints longer lines; a longer one reaches the callback in pieces.
const LINE_LIMIT: usize = 64 * 1024;
/// The time to clean up after SIGTERM (make removes half-written targets).
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A program could not be started.
    #[error("cannot start {program}; is it installed?")]
    NotStarted {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },

    /// A file operation on its log or its output failed.
    #[error("cannot {action} {}", log.display())]
    Log {
        /// The operation, as a verb: "write".
        action: &'static str,
        /// The log.
        log: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A program ended with an error.
    #[error("{what} failed ({status}); the whole log is {}\n{tail}", log.display())]
    Failed {
        /// What the program was doing.
        what: String,
        /// How it ended.
        status: String,
        /// Everything it printed.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A program was stopped because it took too long or fell silent.
    #[error("{what} was stopped: {why}; the whole log is {}\n{tail}", log.display())]
    TimedOut {
        /// What the program was doing.
        what: String,
        /// Which limit it ran into.
        why: String,
        /// Everything it printed.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

impl RunError {
    /// Whether a full disk is the cause, by our own failed write or by the program's last lines.
    pub(crate) fn is_full_disk(&self) -> bool {
        match self {
            Self::Log { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Failed { tail, .. } => tail.contains("No space left on device"),
            Self::NotStarted { .. } | Self::TimedOut { .. } => false,
        }
    }
}

/// Adds the operation and the log to an I/O error.
fn logged(action: &'static str, log: &Path) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Log { action, log: log.into(), source }
}

/// How long a program may run in all, how long it may print nothing, and whether it ends with the harness.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) total: Duration,
    pub(crate) silence: Duration,
    pub(crate) tied: bool,
}

impl Limits {
    pub(crate) const fn minutes(total: u64, silence: u64) -> Limits {
        Limits { total: Duration::from_secs(total * 60), silence: Duration::from_secs(silence * 60), tied: true }
    }

    /// For a program that must not be stopped half-way only because the harness was killed: apt installing packages.
    pub(crate) const fn outliving_us(self) -> Limits {
        Limits { tied: false, ..self }
    }
}

/// Runs `command` to its end; `what` names it in errors ("the kernel build").
///
/// The log is appended to, so that the programs of one step share it. The program stays in this process group:
/// Ctrl-C reaches it too.
pub(crate) fn run(
    what: &str,
    mut command: Command,
    log: &Path,
    limits: Limits,
    mut on_line: impl FnMut(&str),
) -> Result<(), RunError> {
    let mut log_file = File::options().create(true).append(true).open(log).map_err(logged("write", log))?;
    writeln!(log_file, "# {command:?}").map_err(logged("write", log))?;
    let (mut output, input) = io::pipe().map_err(logged("make a pipe for", log))?;
    let errors = input.try_clone().map_err(logged("make a pipe for", log))?;
    command.stdin(Stdio::null()).stdout(input).stderr(errors).env("LC_ALL", "C");
    let program = command.get_program().to_string_lossy().into_owned();
    // The command holds our ends of the pipe until it is dropped, and there is no end of file before that.
    let started = if limits.tied { tied::spawn(command, Signal::TERM) } else { { command }.spawn() };
    let mut child = started.map_err(|source| RunError::NotStarted { program, source })?;

    let start = Instant::now();
    let mut heard = start;
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(why) = over(limits, start, heard) {
            child::stop(&mut child, GRACE);
            return Err(RunError::TimedOut { what: what.into(), why, log: log.into(), tail: tail(log) });
        }
        if !readable(&output) {
            // A background process that inherited the pipe must not keep us here.
            if let Ok(Some(status)) = child.try_wait()
                && !readable(&output)
            {
                return verdict(what, status, log);
            }
            continue;
        }
        let count = output.read(&mut buffer).map_err(logged("read the output for", log))?;
        if count == 0 {
            break;
        }
        heard = Instant::now();
        log_file.write_all(&buffer[..count]).map_err(logged("write", log))?;
        for &byte in &buffer[..count] {
            let ends = byte == b'\n' || byte == b'\r';
            if !ends {
                line.push(byte);
            }
            if (ends && !line.is_empty()) || line.len() == LINE_LIMIT {
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        on_line(&String::from_utf8_lossy(&line));
    }
    loop {
        if let Some(status) = child::wait(&mut child, POLL).map_err(logged("wait for the program of", log))? {
            return verdict(what, status, log);
        }
        if let Some(why) = over(limits, start, heard) {
            child::stop(&mut child, GRACE);
            return Err(RunError::TimedOut { what: what.into(), why, log: log.into(), tail: tail(log) });
        }
    }
}

/// Starts a log afresh.
pub(crate) fn new_log(log: &Path) -> Result<(), RunError> {
    fs::write(log, "").map_err(logged("write", log))
}

/// The standard output of a quick query; `None` if it cannot start, fails, hangs or prints more than 16 MiB.
pub(crate) fn query(command: &mut Command) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(20);
    const MOST: usize = 16 << 20;
    let (mut output, input) = io::pipe().ok()?;
    let mut child = command.stdin(Stdio::null()).stdout(input).stderr(Stdio::null()).spawn().ok()?;
    command.stdout(Stdio::null());
    let start = Instant::now();
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    let mut open = true;
    while start.elapsed() < LIMIT && text.len() < MOST && !interrupted() {
        if !open {
            if let Some(status) = child::wait(&mut child, POLL).ok()? {
                return status.success().then(|| String::from_utf8_lossy(&text).into_owned());
            }
        } else if readable(&output) {
            match output.read(&mut buffer) {
                Ok(count) if count > 0 => text.extend_from_slice(&buffer[..count]),
                _ => open = false,
            }
        }
    }
    child::stop(&mut child, GRACE);
    None
}

fn verdict(what: &str, status: ExitStatus, log: &Path) -> Result<(), RunError> {
    if status.success() {
        return Ok(());
    }
    Err(RunError::Failed { what: what.into(), status: status.to_string(), log: log.into(), tail: tail(log) })
}

thread_local! {
    /// Ends the programs of this thread when set.
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Ends the programs that this thread runs once `stop` is set.
pub(crate) fn stop_with(stop: &Arc<AtomicBool>) {
    STOP.with(|own| *own.borrow_mut() = Some(Arc::clone(stop)));
}

fn over(limits: Limits, start: Instant, heard: Instant) -> Option<String> {
    if interrupted() {
        return Some("interrupted".into());
    }
    if STOP.with(|own| own.borrow().as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))) {
        return Some("another step failed".into());
    }
    if start.elapsed() > limits.total {
        Some(format!("it ran for more than {} s", limits.total.as_secs()))
    } else if heard.elapsed() > limits.silence {
        Some(format!("it printed nothing for {} s", limits.silence.as_secs()))
    } else {
        None
    }
}

fn readable(output: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(output, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: POLL.subsec_nanos().into() };
    matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const SHORT: Limits = Limits { total: Duration::from_secs(60), silence: Duration::from_millis(300), tied: true };
    const LONG: Limits = Limits::minutes(1, 1);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_reach_the_log_and_the_callback_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut lines = Vec::new();
        run("it", shell("echo one; echo two >&2; printf three"), &log, LONG, |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(fs::read_to_string(&log).unwrap().ends_with("one\ntwo\nthree"));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log_and_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run("the build", shell("seq 100; exit 3"), &log, LONG, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("the build failed (exit status: 3)"), "{error}");
        assert!(error.contains(&log.display().to_string()) && error.ends_with("\n99\n100"), "{error}");
        assert!(!error.contains("\n80\n"), "{error}");
    }

    #[test]
    fn a_program_that_falls_silent_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run("the fetch", shell("echo begun; exec sleep 600"), &log, SHORT, |_| {}).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_program_beside_a_step_that_fails_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let stop = Arc::new(AtomicBool::new(false));
        stop_with(&stop);
        let error = run("it", shell("echo begun; exec sleep 600"), &log, LONG, |_| stop.store(true, Ordering::Relaxed));
        assert!(error.unwrap_err().to_string().contains("another step failed"));
    }

    #[test]
    fn a_background_process_that_keeps_the_pipe_does_not_keep_us() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut lines = Vec::new();
        let script = "sleep 600 & echo $!";
        run("it", shell(script), &log, LONG, |line| lines.push(line.to_owned())).unwrap();
        let pid = Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn a_query_of_a_missing_or_failing_program_is_none() {
        assert_eq!(query(&mut Command::new("/nonexistent/program")), None);
        assert_eq!(query(&mut shell("echo x; exit 1")), None);
        assert_eq!(query(&mut shell("exec yes")), None);
        assert_eq!(query(&mut shell("echo x")).as_deref(), Some("x\n"));
    }
}
