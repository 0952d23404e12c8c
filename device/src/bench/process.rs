//! A running process: its resident anonymous pages, which are what a kernel would demote.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::PAGE;

/// In an entry of `/proc/PID/pagemap`: the page is a file's or shared (Documentation/admin-guide/mm/pagemap.rst).
const FILE_OR_SHARED: u64 = 1 << 61;
/// In an entry of `/proc/PID/pagemap`: the page is present in RAM.
const PRESENT: u64 = 1 << 63;
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
    /// It has no address space.
    #[error("process {0} has no anonymous memory that is resident (a kernel thread, a zombie, or all is swapped out)")]
    Nothing(u32),
    /// Another size of page.
    #[error("pages of {0} bytes are not supported: --pid needs a host with pages of 4096 bytes")]
    PageSize(usize),
    /// Anything else.
    #[error("cannot read the memory of process {pid}: {source}")]
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
            Some(libc::ENOENT | libc::ESRCH) => Self::Gone(pid),
            Some(libc::EACCES | libc::EPERM) => Self::Forbidden(pid),
            _ => Self::Io { pid, source },
        }
    }
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
    if runs.is_empty() { Err(ProcessError::Nothing(pid)) } else { Ok(runs) }
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
