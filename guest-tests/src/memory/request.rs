//! What else can be asked of the kernel for pages that are mapped: pin, lock, merge, collapse, split, move them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use libc::{c_int, c_ulong};
use serde::{Deserialize, Serialize};

use super::region::Region;
use super::userfault;
use crate::pattern::PAGE;

/// Something asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// A long-term pin (`FOLL_LONGTERM`), which is given back at once. By the kernel's gup_test.
    PinLongterm,
    /// `mbind` to a node with `MPOL_MF_MOVE` and not strict: pages that cannot move stay, and that is no error.
    BindAndMove {
        /// Where to.
        node: u32,
    },
    /// `mlock`, and `munlock`.
    Lock,
    /// `MADV_MERGEABLE`: KSM may merge them.
    Mergeable,
    /// `MADV_COLLAPSE`: make huge pages of them now.
    Collapse,
    /// `MADV_HUGEPAGE` for all of the mapping: khugepaged may make huge pages of it.
    Huge,
    /// Has the huge pages split, by debugfs.
    Split,
    /// userfaultfd moves them elsewhere, and back.
    UserfaultMove,
    /// userfaultfd write-protects them, and releases them.
    UserfaultProtect,
}

/// mm/huge_memory.c: takes "PID,FIRST,END".
const SPLIT_HUGE_PAGES: &str = "/sys/kernel/debug/split_huge_pages";

/// mm/gup_test.h: `PIN_LONGTERM_TEST_START` and `PIN_LONGTERM_TEST_STOP`, and what the first is given.
const PIN_LONGTERM_TEST_START: c_ulong = 0x4018_6707;
const PIN_LONGTERM_TEST_STOP: c_ulong = 0x6708;
#[repr(C)]
struct PinLongterm {
    address: u64,
    bytes: u64,
    flags: u32,
}

impl Request {
    /// Asks it for pages of a region.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn ask(&self, region: &Region, first: usize, pages: usize) -> io::Result<()> {
        let start = region.addresses(first, 1)[0];
        let bytes = pages * PAGE;
        match self {
            Self::PinLongterm => pin(&PinLongterm { address: start as u64, bytes: bytes as u64, flags: 0 }),
            Self::BindAndMove { node } => region.bind_loosely(first, pages, *node),
            // SAFETY: the pages are the region's; locking changes no content.
            Self::Lock => result(unsafe { libc::mlock(start, bytes) })
                .and_then(|()| result(unsafe { libc::munlock(start, bytes) })),
            Self::Mergeable => advise(region, first, pages, libc::MADV_MERGEABLE),
            Self::Collapse => {
                region.huge(true)?;
                advise(region, first, pages, libc::MADV_COLLAPSE)
            }
            Self::Huge => region.huge(true),
            Self::UserfaultMove => userfault::move_there_and_back(region, first, pages),
            Self::UserfaultProtect => userfault::protect_and_release(region, first, pages),
            Self::Split => {
                let (from, pid) = (start as u64, std::process::id());
                let command = format!("{pid},{from:#x},{:#x}", from + bytes as u64);
                OpenOptions::new().write(true).open(SPLIT_HUGE_PAGES)?.write_all(command.as_bytes())
            }
        }
    }
}

fn pin(pages: &PinLongterm) -> io::Result<()> {
    let test = File::open("/sys/kernel/debug/gup_test")?;
    // SAFETY: the argument is as the command wants it, and the kernel only reads it.
    result(unsafe { libc::ioctl(test.as_raw_fd(), PIN_LONGTERM_TEST_START, pages) })?;
    // SAFETY: takes no argument.
    result(unsafe { libc::ioctl(test.as_raw_fd(), PIN_LONGTERM_TEST_STOP) })
}

fn advise(region: &Region, first: usize, pages: usize, advice: c_int) -> io::Result<()> {
    // SAFETY: the pages are the region's; neither of the advices used changes content.
    result(unsafe { libc::madvise(region.addresses(first, 1)[0], pages * PAGE, advice) })
}

fn result(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
