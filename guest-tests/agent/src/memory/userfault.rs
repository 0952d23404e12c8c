//! userfaultfd on pages that are present: moved elsewhere and back, write-protected and released. Neither changes content,
//! and both rewrite page tables in their own ways.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use cxl_cram_wire::pattern::PAGE;
use libc::{c_int, c_ulong};

use super::region::Region;

// include/uapi/linux/userfaultfd.h.
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: c_ulong = 0x8010_aa01;
const UFFDIO_MOVE: c_ulong = 0xc028_aa05;
const UFFDIO_WRITEPROTECT: c_ulong = 0xc018_aa06;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Move {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    moved: i64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

/// Moves pages to another mapping and back, by `UFFDIO_MOVE`: huge pages whole.
///
/// # Errors
/// A page is shared or pinned.
pub(super) fn move_there_and_back(region: &Region, first: usize, pages: usize) -> io::Result<()> {
    let fd = Userfault::open()?;
    let away = Region::new(pages)?;
    let (here, there) = (range(region, first, pages), range(&away, 0, pages));
    fd.register(here, UFFDIO_REGISTER_MODE_MISSING)?;
    fd.register(there, UFFDIO_REGISTER_MODE_MISSING)?;
    fd.moved(here, there)?;
    fd.moved(there, here)?;
    fd.unregister(here)
}

/// Write-protects pages, and releases them again, by `UFFDIO_WRITEPROTECT`.
///
/// # Errors
/// The kernel does not support write protection here.
pub(super) fn protect_and_release(region: &Region, first: usize, pages: usize) -> io::Result<()> {
    let fd = Userfault::open()?;
    let here = range(region, first, pages);
    fd.register(here, UFFDIO_REGISTER_MODE_WP)?;
    for mode in [UFFDIO_WRITEPROTECT_MODE_WP, 0] {
        fd.call(UFFDIO_WRITEPROTECT, &mut WriteProtect { range: here, mode })?;
    }
    fd.unregister(here)
}

fn range(region: &Region, first: usize, pages: usize) -> Range {
    Range { start: region.addresses(first, 1)[0] as u64, len: (pages * PAGE) as u64 }
}

struct Userfault(OwnedFd);

impl Userfault {
    fn open() -> io::Result<Self> {
        // SAFETY: takes only flags, and returns a file descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let fd = Self(unsafe { OwnedFd::from_raw_fd(fd as c_int) });
        fd.call(UFFDIO_API, &mut Api { api: UFFD_API, features: 0, ioctls: 0 })?;
        Ok(fd)
    }

    fn register(&self, range: Range, mode: u64) -> io::Result<()> {
        self.call(UFFDIO_REGISTER, &mut Register { range, mode, ioctls: 0 })
    }

    fn unregister(&self, mut range: Range) -> io::Result<()> {
        self.call(UFFDIO_UNREGISTER, &mut range)
    }

    fn moved(&self, from: Range, to: Range) -> io::Result<()> {
        let mut order = Move { to: to.start, from: from.start, len: from.len, mode: 0, moved: 0 };
        self.call(UFFDIO_MOVE, &mut order)
    }

    /// One command; the kernel reads and writes its argument.
    fn call<T>(&self, command: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: each command gets its own structure. The addresses in it are of our mappings, and no reference into them
        // exists.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), command, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
