//! Reads the guest's console and finds trouble: warnings, oopses, panics and hangs.

use std::io::{self, BufRead, BufReader, Read, Write};

use cxl_cram_wire::protocol::DIED;

use crate::health::{Health, Severity, Trouble};

/// Maximum length of a line in bytes: a guest may never send a line end.
const MAX_LINE: u64 = 4096;

/// Patterns of trouble. The first match counts.
const PATTERNS: [(&str, Severity); 16] = [
    ("Kernel panic - not syncing", Severity::Fatal),
    ("BUG: soft lockup", Severity::Fatal),
    ("BUG: workqueue lockup", Severity::Warning),
    ("BUG: ", Severity::Fatal),
    ("kernel BUG at", Severity::Fatal),
    ("Oops: ", Severity::Fatal),
    ("general protection fault", Severity::Fatal),
    ("hard LOCKUP", Severity::Fatal),
    ("blocked for more than", Severity::Fatal),
    (DIED, Severity::Fatal),
    ("WARNING: ", Severity::Warning),
    ("UBSAN: ", Severity::Warning),
    ("detected stall", Severity::Warning),
    ("self-detected stall", Severity::Warning),
    ("detected stalls on CPUs", Severity::Warning),
    ("Out of memory: Killed process", Severity::Warning),
];

/// Lines that only look like trouble: the raw mailbox path announces itself with a WARN.
const HARMLESS: [&str; 1] = ["raw command path used"];

/// Starts a WARN or an oops; the message comes next.
const CUT: &str = "------------[ cut here ]------------";
/// Ends an oops.
const END: &str = "---[ end ";

/// Finds trouble line by line. Keeps the lines after a cut mark, because a WARN's message comes before its `WARNING:`.
#[derive(Debug, Default)]
pub struct Watcher {
    expected: Vec<String>,
    /// Lines since the cut mark.
    since_cut: Option<String>,
    fatal: bool,
}

impl Watcher {
    /// A watcher that ignores lines containing any of these.
    pub fn new(expected: Vec<String>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Examines the next line. Returns the trouble it reports, if any.
    pub fn look(&mut self, line: &str) -> Option<Trouble> {
        if line.contains(CUT) {
            self.since_cut = Some(String::new());
            return None;
        }
        let (_, severity) = PATTERNS.iter().find(|(pattern, _)| line.contains(pattern)).or_else(|| {
            // The message of a WARN: at most a few lines before the pattern.
            if let Some(held) = &mut self.since_cut
                && held.len() < MAX_LINE as usize
            {
                held.push_str(line);
                held.push('\n');
            }
            None
        })?;
        let message = self.since_cut.take().unwrap_or_default();
        let harmless = HARMLESS.iter().copied().chain(self.expected.iter().map(String::as_str));
        if harmless.into_iter().any(|part| line.contains(part) || message.contains(part)) {
            return None;
        }
        self.fatal |= *severity == Severity::Fatal;
        let line = if message.is_empty() { line.to_owned() } else { format!("{} ({line})", message.trim_end()) };
        Some(Trouble { severity: *severity, line })
    }

    /// Whether this line ends a fatal trouble.
    pub fn ends(&self, line: &str) -> bool {
        self.fatal && line.contains(END)
    }
}

/// Copies the console to `log` and reports lines and troubles to `health`, until the console ends.
///
/// # Errors
/// The console cannot be read or the log cannot be written. The rest of the console is left unread.
pub fn watch(console: impl Read, mut log: impl Write, mut watcher: Watcher, health: &Health) -> io::Result<()> {
    let mut console = BufReader::new(console);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match console.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        log.write_all(&bytes)?;
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        health.line(line);
        if let Some(trouble) = watcher.look(line) {
            health.trouble(trouble);
        }
        if watcher.ends(line) {
            health.settled();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn troubles(lines: &[&str]) -> Vec<Trouble> {
        let mut watcher = Watcher::new(vec!["expected here".into()]);
        lines.iter().filter_map(|line| watcher.look(line)).collect()
    }

    #[test]
    fn an_ordinary_boot_is_no_trouble() {
        let lines = [
            "[    0.000000] Linux version 6.12.117",
            "[    0.100000] Kernel command line: console=ttyS0 panic=-1",
            "[    0.200000] x86/bugs: Spectre V1 : Mitigation",
            "[    1.000000] Run /init as init process",
        ];
        assert_eq!(troubles(&lines), []);
    }

    #[test]
    fn oopses_panics_and_hangs_are_fatal() {
        for line in [
            "[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[    1.0] Oops: Oops: 0000 [#1] PREEMPT SMP",
            "[    1.0] kernel BUG at mm/memory.c:1!",
            "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
            "[    1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!",
            "[    1.0] INFO: task kworker/0:1:9 blocked for more than 122 seconds.",
            "[    1.0] cxl-cram: the agent died: exit code 101",
        ] {
            let found = troubles(&[line]);
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!(found[0].severity, Severity::Fatal, "{line}");
        }
    }

    #[test]
    fn a_warn_carries_its_message() {
        let found = troubles(&[
            "[    1.0] ------------[ cut here ]------------",
            "[    1.0] refcount went wrong",
            "[    1.0] WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 x+0x1/0x2",
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].line.contains("refcount went wrong") && found[0].line.contains("lib/refcount.c:28"));
    }

    #[test]
    fn warns_that_are_harmless_or_expected_are_no_trouble() {
        for message in ["cxl_pci 0000:0d:00.0: raw command path used", "expected here"] {
            let lines = ["------------[ cut here ]------------", message, "WARNING: CPU: 0 PID: 1 at drivers/x.c:1"];
            assert_eq!(troubles(&lines), [], "{message}");
        }
        // Only that one: the next is trouble again.
        assert_eq!(troubles(&["raw command path used", "WARNING: CPU: 0 PID: 1 at x.c:1"]).len(), 1);
    }

    #[test]
    fn the_console_is_copied_and_the_end_of_an_oops_detected() {
        let console = "one\nBUG: two\n---[ end trace 0000000000000000 ]---\nunfinished";
        let (mut log, health) = (Vec::new(), Health::default());
        watch(console.as_bytes(), &mut log, Watcher::default(), &health).unwrap();
        assert_eq!(log, console.as_bytes());
        let report = health.report();
        assert_eq!(report.troubles.len(), 1);
        assert_eq!(report.console.last().unwrap(), "unfinished");
    }
}
