//! Runs one program of a step: everything it says goes to a log and line by line to a callback, and it has a time limit.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{child, interrupt::interrupted};

use super::error::{IoContext, ProvisionError};

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 20;
/// No sane program prints longer lines; a longer one reaches the callback in pieces.
const LINE_LIMIT: usize = 64 * 1024;
/// What a program gets to clean up after being asked to end (make removes half-written targets).
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// How long a program may run in all, and how long it may say nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) total: Duration,
    pub(super) silence: Duration,
}

impl Limits {
    pub(super) const fn minutes(total: u64, silence: u64) -> Limits {
        Limits { total: Duration::from_secs(total * 60), silence: Duration::from_secs(silence * 60) }
    }
}

/// Runs `command` to its end; `what` names it in errors ("the kernel build").
///
/// The log is appended to, so that the programs of one step share it. The program stays in this process group:
/// Ctrl-C reaches it too.
pub(super) fn run(
    what: &str,
    command: &mut Command,
    log: &Path,
    limits: Limits,
    mut on_line: impl FnMut(&str),
) -> Result<(), ProvisionError> {
    let mut log_file = File::options().create(true).append(true).open(log).context("write", log)?;
    writeln!(log_file, "# {command:?}").context("write", log)?;
    let (mut output, input) = io::pipe().context("make a pipe for", log)?;
    let errors = input.try_clone().context("make a pipe for", log)?;
    command.stdin(Stdio::null()).stdout(input).stderr(errors).env("LC_ALL", "C");
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|source| ProvisionError::NotStarted { program, source })?;
    // The command keeps our ends of the pipe open until its settings are replaced: no end of file before that.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let start = Instant::now();
    let mut heard = start;
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(why) = over(limits, start, heard) {
            child::stop(&mut child, GRACE);
            return Err(ProvisionError::TimedOut { what: what.into(), why, log: log.into(), tail: tail(log) });
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
        let count = output.read(&mut buffer).context("read the output for", log)?;
        if count == 0 {
            break;
        }
        heard = Instant::now();
        log_file.write_all(&buffer[..count]).context("write", log)?;
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
        if let Some(status) = child::wait(&mut child, POLL).context("wait for the program of", log)? {
            return verdict(what, status, log);
        }
        if let Some(why) = over(limits, start, heard) {
            child::stop(&mut child, GRACE);
            return Err(ProvisionError::TimedOut { what: what.into(), why, log: log.into(), tail: tail(log) });
        }
    }
}

/// Starts a log afresh.
pub(super) fn new_log(log: &Path) -> Result<(), ProvisionError> {
    fs::write(log, "").context("write", log)
}

/// What a quick query prints on its standard output; `None` when it cannot be started, fails, hangs or babbles.
pub(super) fn query(command: &mut Command) -> Option<String> {
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

fn verdict(what: &str, status: ExitStatus, log: &Path) -> Result<(), ProvisionError> {
    if status.success() {
        return Ok(());
    }
    Err(ProvisionError::Failed { what: what.into(), status: status.to_string(), log: log.into(), tail: tail(log) })
}

fn over(limits: Limits, start: Instant, heard: Instant) -> Option<String> {
    if interrupted() {
        return Some("interrupted".into());
    }
    if start.elapsed() > limits.total {
        Some(format!("it ran for more than {} s", limits.total.as_secs()))
    } else if heard.elapsed() > limits.silence {
        Some(format!("it said nothing for {} s", limits.silence.as_secs()))
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

    const SHORT: Limits = Limits { total: Duration::from_secs(60), silence: Duration::from_millis(300) };
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
        run("it", &mut shell("echo one; echo two >&2; printf three"), &log, LONG, |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(fs::read_to_string(&log).unwrap().ends_with("one\ntwo\nthree"));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_log_and_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run("the build", &mut shell("seq 100; exit 3"), &log, LONG, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("the build failed (exit status: 3)"), "{error}");
        assert!(error.contains(&log.display().to_string()) && error.ends_with("\n99\n100"), "{error}");
        assert!(!error.contains("\n80\n"), "{error}");
    }

    #[test]
    fn a_program_that_falls_silent_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run("the fetch", &mut shell("echo begun; exec sleep 600"), &log, SHORT, |_| {}).unwrap_err();
        assert!(matches!(error, ProvisionError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_background_process_that_keeps_the_pipe_does_not_keep_us() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut lines = Vec::new();
        let script = "sleep 600 & echo $!";
        run("it", &mut shell(script), &log, LONG, |line| lines.push(line.to_owned())).unwrap();
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
