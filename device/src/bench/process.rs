//! A running process: its resident anonymous pages, which are what a kernel would demote.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::PAGE;

/// In an entry of `/proc/PID/pagemap`: the page is a file's or shared (Documentation/admin-guide/mm/pagemap.rst).
const FILE_OR_SHARED: u64 = 1 << 61;
/// In an entry of `/proc/PID/pagemap`: the page is present in RAM.
const PRESENT: u64 = 1 << 63;
/// In the flags of `/proc/PID/stat`: PF_KTHREAD of the kernel's `sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Entries read at a time.
const BATCH: u64 = 8192;

/// Why a process is not measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    /// No such process.
    #[error("there is no process {0}: it has ended, or never was")]
    Gone(u32),
    /// Not ours.
    #[error("process {0} may not be read: run as its user or as root (ptrace access is needed)")]
    Forbidden(u32),
    /// It runs in the kernel.
    #[error("process {pid} is the kernel thread {name}: it has no memory of its own to measure")]
    KernelThread {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It has ended.
    #[error("process {0} has ended and left no memory; only its parent has not collected it yet (a zombie)")]
    Zombie(u32),
    /// All is elsewhere.
    #[error("process {0} has no anonymous memory that is resident: it is all of files, shared or swapped out")]
    Nothing(u32),
    /// Another size of page.
    #[error("pages of {0} bytes are not supported: --pid needs a host with pages of 4096 bytes")]
    PageSize(usize),
    /// Anything else.
    #[error("cannot read the memory of process {pid}")]
    Io {
        /// The process.
        pid: u32,
        /// The system's answer.
        source: io::Error,
    },
}

impl ProcessError {
    /// What an error of a file below `/proc/PID` means.
    pub(super) fn of(pid: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Self::without_memory(pid).unwrap_or(Self::Gone(pid)),
            Some(libc::EACCES | libc::EPERM) => Self::without_memory(pid).unwrap_or(Self::Forbidden(pid)),
            _ => Self::Io { pid, source },
        }
    }

    /// Why a process that is there has no address space; None if it has one, or is not there.
    fn without_memory(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (name, state, flags) = parse_stat(&stat)?;
        if flags & KERNEL_THREAD != 0 {
            return Some(Self::KernelThread { pid, name: name.to_owned() });
        }
        matches!(state, "Z" | "X").then_some(Self::Zombie(pid))
    }
}

/// Name, state and flags in a `/proc/PID/stat`.
fn parse_stat(stat: &str) -> Option<(&str, &str, u32)> {
    // The name may hold anything, brackets and spaces too.
    let (before, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some((before.split_once('(')?.1, fields.next()?, fields.nth(5)?.parse().ok()?))
}

/// Opens the memory of a process, to be read at its addresses.
pub(super) fn memory(pid: u32) -> Result<File, ProcessError> {
    File::open(format!("/proc/{pid}/mem")).map_err(|error| ProcessError::of(pid, error))
}

/// Address and length of each run of resident anonymous pages.
pub(super) fn resident(pid: u32) -> Result<Vec<(u64, u64)>, ProcessError> {
    let page = PAGE as u64;
    if rustix::param::page_size() != PAGE {
        return Err(ProcessError::PageSize(rustix::param::page_size()));
    }
    let fail = |error| ProcessError::of(pid, error);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(fail)?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(fail)?;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut entries = vec![0; BATCH as usize * 8];
    for (start, end) in maps.lines().filter_map(mapping) {
        let mut at = start;
        while at < end {
            let want = ((end - at) / page).min(BATCH) as usize * 8;
            let got = pagemap.read_at(&mut entries[..want], at / page * 8).map_err(fail)?;
            if got < 8 {
                break;
            }
            for entry in entries[..got].as_chunks().0 {
                let entry = u64::from_ne_bytes(*entry);
                if entry & PRESENT != 0 && entry & FILE_OR_SHARED == 0 {
                    match runs.last_mut() {
                        Some((from, bytes)) if *from + *bytes == at => *bytes += page,
                        _ => runs.push((at, page)),
                    }
                }
                at += page;
            }
        }
    }
    if runs.is_empty() {
        return Err(ProcessError::without_memory(pid).unwrap_or(ProcessError::Nothing(pid)));
    }
    Ok(runs)
}

/// Start and end of a readable mapping that can have pages of its own.
fn mapping(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let readable = fields.next()?.starts_with('r');
    // The kernel's own mappings: no memory of the process.
    let special = fields.nth(3).is_some_and(|name| name.starts_with("[v"));
    let parse = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (parse(start)?, parse(end)?);
    (readable && !special && start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_stat_may_have_spaces_and_brackets() {
        let stat = "7 (a) Z (b c) S 1 7 7 0 -1 4194560 100 0";
        assert_eq!(parse_stat(stat), Some(("a) Z (b c", "S", 4_194_560)));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn mappings_of_the_kernel_and_unreadable_ones_are_passed_over() {
        assert_eq!(mapping("00400000-00401000 r-xp 00000000 08:01 42  /bin/true"), Some((0x40_0000, 0x40_1000)));
        assert_eq!(
            mapping("7f0000000000-7f0000002000 rw-p 00000000 00:00 0"),
            Some((0x7f00_0000_0000, 0x7f00_0000_2000))
        );
        assert_eq!(mapping("7ffd1000-7ffd2000 r--p 00000000 00:00 0  [vvar]"), None);
        assert_eq!(mapping("00400000-00401000 ---p 00000000 00:00 0"), None);
        assert_eq!(mapping("nonsense"), None);
        assert_eq!(mapping(""), None);
    }
}
