//! Other requests to the kernel for mapped pages: pin, lock, merge, collapse, split, move them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use cxl_cram_wire::memory::Request;
use cxl_cram_wire::pattern::PAGE;
use libc::{c_int, c_ulong};

use super::region::Region;
use super::userfault;

/// mm/huge_memory.c: takes "PID,FIRST,END".
const SPLIT_HUGE_PAGES: &str = "/sys/kernel/debug/split_huge_pages";

/// mm/gup_test.h: `PIN_LONGTERM_TEST_START` and `PIN_LONGTERM_TEST_STOP`, and the argument of the first.
const PIN_LONGTERM_TEST_START: c_ulong = 0x4018_6707;
const PIN_LONGTERM_TEST_STOP: c_ulong = 0x6708;
#[repr(C)]
struct PinLongterm {
    address: u64,
    bytes: u64,
    flags: u32,
}

/// Makes a request for pages of a region.
///
/// # Errors
/// The kernel refuses the request.
pub(super) fn ask(request: &Request, region: &Region, first: usize, pages: usize) -> io::Result<()> {
    let start = region.addresses(first, 1)[0];
    let bytes = pages * PAGE;
    match request {
        Request::PinLongterm => pin(&PinLongterm { address: start as u64, bytes: bytes as u64, flags: 0 }),
        Request::BindAndMove { node } => region.bind_loosely(first, pages, *node),
        Request::Lock => {
            // SAFETY: the pages are the region's; locking changes no content.
            result(unsafe { libc::mlock(start, bytes) })?;
            // SAFETY: as above.
            result(unsafe { libc::munlock(start, bytes) })
        }
        Request::Mergeable => advise(region, first, pages, libc::MADV_MERGEABLE),
        Request::Collapse => {
            region.huge(true)?;
            advise(region, first, pages, libc::MADV_COLLAPSE)
        }
        Request::Huge => region.huge(true),
        Request::UserfaultMove => userfault::move_there_and_back(region, first, pages),
        Request::UserfaultProtect => userfault::protect_and_release(region, first, pages),
        Request::Split => {
            let (from, pid) = (start as u64, std::process::id());
            let command = format!("{pid},{from:#x},{:#x}", from + bytes as u64);
            OpenOptions::new().write(true).open(SPLIT_HUGE_PAGES)?.write_all(command.as_bytes())
        }
    }
}

fn pin(pages: &PinLongterm) -> io::Result<()> {
    let test = File::open("/sys/kernel/debug/gup_test")?;
    // SAFETY: the argument has the command's type, and the kernel only reads it.
    result(unsafe { libc::ioctl(test.as_raw_fd(), PIN_LONGTERM_TEST_START, pages) })?;
    // SAFETY: takes no argument.
    result(unsafe { libc::ioctl(test.as_raw_fd(), PIN_LONGTERM_TEST_STOP) })
}

fn advise(region: &Region, first: usize, pages: usize, advice: c_int) -> io::Result<()> {
    // SAFETY: the pages are the region's; neither kind of advice changes content.
    result(unsafe { libc::madvise(region.addresses(first, 1)[0], pages * PAGE, advice) })
}

fn result(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
