//! The ways in which a process writes a page of its own: by a store, after what changes the mapping, or by the kernel on its
//! behalf. Each must end at the same content, whatever a page table says.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;

use libc::{c_int, c_void, iovec};
use serde::{Deserialize, Serialize};

use super::protocol::Advice;
use super::region::Region;
use super::userfault;
use crate::pattern::PAGE;

/// Times that a page is told to be swapped out, before it is said not to be.
const PAGE_OUTS: u32 = 20;

/// A way to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A store.
    Store,
    /// A store of a child that shares the page since `fork`. The parent's content stays.
    Child,
    /// A store of the parent, while a child shares the page. The child's content stays.
    Parent,
    /// A store after `mprotect` to read only and back.
    Mprotect,
    /// A store after `mremap` to elsewhere; the page comes back afterwards.
    Mremap,
    /// `process_vm_writev`, which takes the page by `pin_user_pages` for writing.
    ProcessVm,
    /// A write to `/proc/self/mem` while the page is read only: `FOLL_FORCE`.
    ProcMem,
    /// `read` from a pipe: the kernel's own store.
    Read,
    /// A store after userfaultfd has moved the page away and back.
    UserfaultMove,
    /// A store after userfaultfd has write-protected the page and released it.
    UserfaultProtect,
    /// A store to a page that was unmapped to be swapped out, but is still in the swap cache: a pipe refers to it. Needs swap
    /// space, and a node that can be reclaimed.
    SwapCache,
    /// `vmsplice` from a pipe: the same, by way of the page's address.
    Vmsplice,
    /// A store while a pipe holds the page since `vmsplice`, so that it cannot move. What comes out of the pipe is the page
    /// of before or after, and nothing between.
    Spliced,
}

/// Writes a page.
///
/// # Errors
/// A call fails, or a child finds another content than it should.
pub(super) fn write(region: &mut Region, page: usize, content: &[u8; PAGE], way: Way) -> io::Result<()> {
    match way {
        Way::Store => store(region, page, content),
        Way::Child => {
            let found = in_child(|| {
                store(region, page, content);
                *black_box(&*region.page(page)) == *content
            })?;
            return right(found, "the child does not read what it wrote");
        }
        Way::Parent => return parent(region, page, content),
        Way::Mprotect => {
            region.protect(page, 1, libc::PROT_READ)?;
            region.protect(page, 1, libc::PROT_READ | libc::PROT_WRITE)?;
            store(region, page, content);
        }
        Way::Mremap => {
            let away = Region::new(1)?;
            remap(address(region, page), address(&away, 0))?;
            // SAFETY: the page is mapped at `away` now, which nobody else knows.
            unsafe { ptr::copy_nonoverlapping(content.as_ptr(), address(&away, 0).cast(), PAGE) };
            remap(address(&away, 0), address(region, page))?;
        }
        Way::ProcessVm => {
            let from = iovec { iov_base: content.as_ptr().cast_mut().cast(), iov_len: PAGE };
            let to = iovec { iov_base: address(region, page), iov_len: PAGE };
            // SAFETY: both vectors have one entry of a page; the page written is the region's, borrowed mutably.
            let wrote = unsafe { libc::process_vm_writev(libc::getpid(), &from, 1, &to, 1, 0) };
            return if wrote == PAGE as isize { Ok(()) } else { Err(io::Error::last_os_error()) };
        }
        Way::ProcMem => {
            region.protect(page, 1, libc::PROT_READ)?;
            let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
            memory.write_all_at(content, address(region, page) as u64)?;
            region.protect(page, 1, libc::PROT_READ | libc::PROT_WRITE)?;
        }
        Way::UserfaultMove => {
            userfault::move_there_and_back(region, page, 1)?;
            store(region, page, content);
        }
        Way::UserfaultProtect => {
            userfault::protect_and_release(region, page, 1)?;
            store(region, page, content);
        }
        Way::SwapCache => {
            let kept = keep_in_swap_cache(region, page)?;
            store(region, page, content);
            drop(kept);
        }
        Way::Read => {
            let (mut from, mut to) = io::pipe()?;
            // A pipe holds a page without a reader.
            to.write_all(content)?;
            io::Read::read_exact(&mut from, region.page(page))?;
        }
        Way::Vmsplice => {
            let (from, mut to) = io::pipe()?;
            to.write_all(content)?;
            vmsplice(&from, region, page)?;
        }
        Way::Spliced => {
            let before = *region.page(page);
            let (mut from, to) = io::pipe()?;
            vmsplice(&to, region, page)?;
            store(region, page, content);
            let mut held = [0; PAGE];
            io::Read::read_exact(&mut from, &mut held)?;
            return right(held == before || held == *content, "the pipe holds neither of the page's contents");
        }
    }
    Ok(())
}

fn store(region: &mut Region, page: usize, content: &[u8; PAGE]) {
    black_box(region.page(page)).copy_from_slice(content);
}

/// Has a page unmapped and put into the swap cache, where the pipe keeps it until it is dropped.
fn keep_in_swap_cache(region: &Region, page: usize) -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    vmsplice(&writer, region, page)?;
    for _ in 0..PAGE_OUTS {
        region.advise(page, 1, Advice::PageOut)?;
        if region.in_swap_cache(page)? {
            return Ok((reader, writer));
        }
        // Another processor may hold the page, to put it on a list together with others: until then it is not reclaimed, and
        // a processor that is idle holds it for ever. This has all of them put what they hold.
        fs::write("/proc/sys/vm/drop_caches", "1")?;
    }
    Err(io::Error::other("MADV_PAGEOUT does not unmap the page"))
}

/// Joins a pipe and a page: the page's content comes from the pipe's reading end, or the page goes into its writing end.
fn vmsplice(pipe: &impl AsRawFd, region: &Region, page: usize) -> io::Result<()> {
    let pages = iovec { iov_base: address(region, page), iov_len: PAGE };
    // SAFETY: one entry of a page, which is the region's, and of which no reference is held.
    match unsafe { libc::vmsplice(pipe.as_raw_fd(), &pages, 1, 0) } {
        spliced if spliced == PAGE as isize => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::other("vmsplice took less than the page")),
    }
}

/// A child reads before and after its parent has written.
fn parent(region: &mut Region, page: usize, content: &[u8; PAGE]) -> io::Result<()> {
    let before = *region.page(page);
    let (mut wait, mut go) = io::pipe()?;
    // SAFETY: as in `in_child`.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let told = io::Read::read_exact(&mut wait, &mut [0]).is_ok();
            let same = *black_box(&*region.page(page)) == before;
            // SAFETY: the child ends without running anything of its parent's.
            unsafe { libc::_exit(if told && same { 0 } else { 1 }) }
        }
        child => child,
    };
    store(region, page, content);
    go.write_all(&[0])?;
    right(ended_well(child)?, "the child reads what its parent wrote after fork")
}

/// Whether a child that does this says yes.
fn in_child(work: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: the program has one thread while it serves orders, so the child may do what it likes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the child ends without running anything of its parent's.
        0 => unsafe { libc::_exit(if work() { 0 } else { 1 }) },
        child => ended_well(child),
    }
}

fn ended_well(child: libc::pid_t) -> io::Result<bool> {
    let mut status: c_int = 0;
    // SAFETY: a child of ours; the status is an integer that is there.
    match unsafe { libc::waitpid(child, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0),
    }
}

fn right(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what.to_owned())) }
}

fn address(region: &Region, page: usize) -> *mut c_void {
    region.addresses(page, 1)[0]
}

/// Moves a page's mapping to where another is, which goes.
fn remap(from: *mut c_void, to: *mut c_void) -> io::Result<()> {
    // SAFETY: both are pages of regions of ours, of which no reference is held.
    let moved = unsafe { libc::mremap(from, PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to) };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
