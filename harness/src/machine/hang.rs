//! Where a machine hangs.
//!
//! A guest that still answers is asked for its blocked tasks and what its processors do (sysrq `w` and `l`); one that
//! does not gets an NMI, at which its kernel panics and says where it was. Both are on the console. What the host's
//! side waits for is seen in QEMU's threads: a guest that hangs in an access to a device that hangs runs no kernel code.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cxl_cram_guest::protocol::Call;
use qapi::qmp;
use rustix::process::{Signal, pidfd_send_signal};

use super::{health::Health, qmp::Monitor};
use crate::guest::client::{Guest, GuestError};

/// The kernel's command line needs this, or it takes an NMI from outside for noise.
pub const APPEND: &str = "unknown_nmi_panic";

/// How long the guest gets for each answer, and for its panic.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);
/// Said on the console after the guest's answer, so that one sees that it is whole.
const MARK: &str = "cxl-cram: that is where the guest hangs";
/// Of what the guest says, the most that a message holds. The console's log has it all.
const MOST_LINES: usize = 80;

/// One who can say where a machine hangs, and end it.
#[derive(Clone)]
pub struct Witness {
    pub(super) guest: Guest,
    pub(super) health: Health,
    pub(super) process: Arc<OwnedFd>,
    pub(super) pid: u32,
    pub(super) monitor: PathBuf,
    pub(super) console: PathBuf,
}

impl Witness {
    /// Finds out where the machine hangs, and kills it.
    pub fn testify_and_kill(&self) -> String {
        let mut text = threads(self.pid);
        if self.health.exit().is_none() {
            let before = fs::metadata(&self.console).map_or(0, |file| file.len());
            let asked = self.ask();
            if asked.is_err() {
                self.shake();
            }
            let who = if asked.is_ok() {
                "the guest answers; it says"
            } else {
                "the guest does not answer; at an NMI it says"
            };
            let said = from(&self.console, before);
            let _ = write!(text, "\n{who}:");
            let lines: Vec<_> = said.lines().filter(|line| !line.contains(MARK)).collect();
            lines.iter().take(MOST_LINES).for_each(|line| _ = write!(text, "\n    {line}"));
            if lines.len() > MOST_LINES {
                let _ = write!(text, "\n    ... {} lines more in {}", lines.len() - MOST_LINES, self.console.display());
            }
            if lines.is_empty() {
                text.push_str("\n    nothing");
            }
        }
        // It may have ended by itself.
        let _ = pidfd_send_signal(&*self.process, Signal::KILL);
        text
    }

    /// Has the guest's kernel show its blocked tasks and its processors.
    fn ask(&self) -> Result<(), GuestError> {
        for (path, text) in [("/proc/sysrq-trigger", "w"), ("/proc/sysrq-trigger", "l"), ("/dev/kmsg", MARK)] {
            let write = Call::WriteFile { path: path.into(), data: text.as_bytes().to_vec().into() };
            self.guest.call("ask where it hangs", write, PATIENCE)?;
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && !self.health.report().console.iter().any(|line| line.contains(MARK)) {
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Makes the guest's kernel panic, wherever it is, and waits until it has said so.
    fn shake(&self) {
        let shaken = Monitor::connect(&self.monitor, &self.health, PATIENCE)
            .and_then(|mut monitor| monitor.execute(&qmp::inject_nmi {}));
        match shaken {
            Ok(_) => _ = self.health.wait_exit(PATIENCE),
            Err(error) => tracing::warn!("no NMI for the guest: {error}"),
        }
    }
}

/// What each thread of a process does, as the host's kernel has it: name, state, and where it waits.
fn threads(pid: u32) -> String {
    let mut text = String::from("QEMU's threads:");
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let mut tasks: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    tasks.sort();
    for task in &tasks {
        let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default().trim().to_owned();
        let (name, stat, place) = (read("comm"), read("stat"), read("wchan"));
        // The state comes after the name, which may hold anything, in brackets.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
        let _ = write!(text, "\n    {name:<16} {state} {}", if place == "0" { "" } else { &place });
    }
    if tasks.is_empty() {
        text.push_str("\n    none: it has ended");
    }
    text
}

/// A file from a place on.
fn from(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_with_what_they_wait_for() {
        let text = threads(std::process::id());
        assert!(text.lines().count() > 1, "{text}");
        assert!(threads(u32::MAX).contains("it has ended"));
    }
}
