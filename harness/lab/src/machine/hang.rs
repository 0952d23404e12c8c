//! Diagnoses a hung machine.
//!
//! A guest that still answers logs its blocked tasks and the state of its processors (sysrq `w` and `l`). One that does
//! not gets an NMI, at which its kernel panics with a backtrace. Both appear on the console. QEMU's threads show what the
//! host side waits for: a guest that hangs in an access to a hung device runs no kernel code.

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

use cxl_cram_wire::protocol::Call;
use qapi::qmp;
use rustix::process::{Signal, pidfd_send_signal};

use super::qmp::Monitor;
use crate::guest::client::{Guest, GuestError};
use crate::health::Health;

/// Kernel command line option that makes an external NMI a panic. Without it, the kernel ignores the NMI.
pub const APPEND: &str = "unknown_nmi_panic";

/// How long the guest gets for each answer, and for its panic.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);
/// Written to the console after the guest's answer, to mark its end.
const MARK: &str = "cxl-cram: that is where the guest hangs";
/// The most console lines in a diagnosis. The console log has all of them.
const MOST_LINES: usize = 80;

/// Diagnoses and kills a hung machine.
#[derive(Clone)]
pub struct HangProbe {
    pub(super) guest: Guest,
    pub(super) health: Health,
    pub(super) process: Arc<OwnedFd>,
    pub(super) pid: u32,
    pub(super) monitor: PathBuf,
    pub(super) console: PathBuf,
}

impl HangProbe {
    /// Kills the machine. Returns where it hung.
    pub fn diagnose_and_kill(&self) -> String {
        let mut text = threads(self.pid);
        if self.health.exit().is_none() {
            let before = fs::metadata(&self.console).map_or(0, |file| file.len());
            let answers = self.show_tasks().is_ok();
            if !answers {
                self.inject_nmi();
            }
            let heading = if answers {
                "the guest answers; its console shows"
            } else {
                "the guest does not answer; after an NMI its console shows"
            };
            let output = from(&self.console, before);
            let _ = write!(text, "\n{heading}:");
            let lines: Vec<_> = output.lines().filter(|line| !line.contains(MARK)).collect();
            lines.iter().take(MOST_LINES).for_each(|line| _ = write!(text, "\n    {line}"));
            if lines.len() > MOST_LINES {
                let _ = write!(text, "\n    ... {} more lines in {}", lines.len() - MOST_LINES, self.console.display());
            }
            if lines.is_empty() {
                text.push_str("\n    nothing");
            }
        }
        // QEMU may have exited on its own.
        let _ = pidfd_send_signal(&*self.process, Signal::KILL);
        text
    }

    /// Makes the guest's kernel log its blocked tasks and the state of its processors.
    fn show_tasks(&self) -> Result<(), GuestError> {
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

    /// Makes the guest's kernel panic, wherever it is, and waits for QEMU to exit.
    fn inject_nmi(&self) {
        let injected = Monitor::connect(&self.monitor, &self.health, PATIENCE)
            .and_then(|mut monitor| monitor.execute(&qmp::inject_nmi {}));
        match injected {
            Ok(_) => _ = self.health.wait_exit(PATIENCE),
            Err(error) => tracing::warn!("cannot inject an NMI into the guest: {error}"),
        }
    }
}

/// Lists the threads of a process with name, state and wait channel.
fn threads(pid: u32) -> String {
    let mut text = String::from("QEMU's threads:");
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let mut tasks: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    tasks.sort();
    for task in &tasks {
        let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default().trim().to_owned();
        let (name, stat, place) = (read("comm"), read("stat"), read("wchan"));
        // The state follows the name, which is in brackets and may contain anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
        let _ = write!(text, "\n    {name:<16} {state} {}", if place == "0" { "" } else { &place });
    }
    if tasks.is_empty() {
        text.push_str("\n    none: it has exited");
    }
    text
}

/// Reads a file from an offset to its end.
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
    fn the_threads_of_a_process_are_listed() {
        let text = threads(std::process::id());
        assert!(text.lines().count() > 1, "{text}");
        assert!(threads(u32::MAX).contains("it has exited"));
    }
}
