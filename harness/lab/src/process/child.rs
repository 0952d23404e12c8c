//! Ends programs: waits with a limit, asks, forces.

use std::{
    io,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// Waits for a program's end for at most `limit`.
///
/// # Errors
/// The program is not a child of this process, or there are no file descriptors left.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        // The program ended, the time is up or a signal came: the loop checks.
        let _ = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
    }
}

/// Asks a program to end (SIGTERM), if it runs.
pub(crate) fn terminate(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
}

/// Asks a program to end, and kills it if it still runs after `grace`.
pub(crate) fn stop(child: &mut Child, grace: Duration) {
    terminate(child);
    if !matches!(wait(child, grace), Ok(Some(_))) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        io::Read,
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn the_end_of_a_program_can_be_waited_for_twice() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        for _ in 0..2 {
            assert_eq!(wait(&mut child, LONG).unwrap().and_then(|status| status.code()), Some(3));
        }
    }

    #[test]
    fn a_program_that_does_not_end_by_then_is_still_there() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut child, SHORT).unwrap(), None);
        stop(&mut child, LONG);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn a_program_that_does_not_listen_is_killed() {
        let script = "trap '' TERM; echo deaf; exec sleep 600";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 5]).unwrap();
        stop(&mut child, SHORT);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
