//! The page cache of an open file, through Linux system calls: write back a range, and query which pages are cached.

use std::{fs::File, io, ops::Range, os::fd::AsRawFd};

/// `cachestat(2)`, Linux 6.5; one number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`.
#[repr(C)]
struct StatRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CacheStat {
    pub(super) cached: u64,
    pub(super) dirty: u64,
    pub(super) writeback: u64,
    pub(super) evicted: u64,
    pub(super) recently_evicted: u64,
}

/// Starts to write back the dirty pages of a range of bytes.
pub(super) fn start_write_back(file: &File, bytes: &Range<u64>) -> io::Result<()> {
    sync_range(file, bytes, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes back the dirty pages of a range of bytes and waits for that. All three flags together are what makes Linux skip
/// nothing when the connection is busy.
pub(super) fn write_back(file: &File, bytes: &Range<u64>) -> io::Result<()> {
    sync_range(
        file,
        bytes,
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER,
    )
}

fn sync_range(file: &File, bytes: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let (offset, length) = (bytes.start as i64, (bytes.end - bytes.start) as i64);
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is cached of a range of bytes. `None` before Linux 6.5.
pub(super) fn stat(file: &File, bytes: &Range<u64>) -> Option<CacheStat> {
    let range = StatRange { offset: bytes.start, length: bytes.end - bytes.start };
    let mut stat = CacheStat::default();
    let (range, out) = (&raw const range, &raw mut stat);
    // SAFETY: both pointers are to live structures laid out as the kernel's, and the call keeps neither.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range, out, 0) };
    (result == 0).then_some(stat)
}
