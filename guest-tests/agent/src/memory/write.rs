//! The ways in which a process can write its page: by a store, after a change of the mapping, or by the kernel on its behalf.
//! Each must result in the same content, whatever the page table holds.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr;

use cxl_cram_wire::memory::Advice;
use cxl_cram_wire::memory::Way;
use cxl_cram_wire::pattern::PAGE;
use libc::{c_int, c_void, iovec};

use super::region::Region;
use super::userfault;

/// Attempts to swap a page out before giving up.
const PAGE_OUTS: u32 = 20;

/// Writes a page.
///
/// # Errors
/// A call fails, or a child finds the wrong content.
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
            // SAFETY: the page is now mapped at `away`, which nothing else uses.
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

/// Unmaps a page into the swap cache, where the pipe keeps it until the pipe is dropped.
fn keep_in_swap_cache(region: &Region, page: usize) -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    vmsplice(&writer, region, page)?;
    for _ in 0..PAGE_OUTS {
        region.advise(page, 1, Advice::PageOut)?;
        if region.in_swap_cache(page)? {
            return Ok((reader, writer));
        }
        // Another processor may hold the page in a batch for the LRU lists. Until it drains the batch, which an idle processor
        // never does, the page is not reclaimed. This drains all batches.
        fs::write("/proc/sys/vm/drop_caches", "1")?;
    }
    Err(io::Error::other("MADV_PAGEOUT does not unmap the page"))
}

/// Joins a pipe and a page: the page's content comes from the pipe's reading end, or the page goes into its writing end.
fn vmsplice(pipe: &impl AsRawFd, region: &Region, page: usize) -> io::Result<()> {
    let pages = iovec { iov_base: address(region, page), iov_len: PAGE };
    // SAFETY: one entry for a page of the region, and no reference into it exists.
    match unsafe { libc::vmsplice(pipe.as_raw_fd(), &pages, 1, 0) } {
        spliced if spliced == PAGE as isize => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::Error::other("vmsplice took only part of the page")),
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
            let woken = io::Read::read_exact(&mut wait, &mut [0]).is_ok();
            let same = *black_box(&*region.page(page)) == before;
            // SAFETY: the child exits without running any of its parent's code.
            unsafe { libc::_exit(if woken && same { 0 } else { 1 }) }
        }
        child => child,
    };
    store(region, page, content);
    go.write_all(&[0])?;
    right(ended_well(child)?, "the child reads what its parent wrote after fork")
}

/// Whether a child that runs this exits with success.
fn in_child(work: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: the program has one thread while it serves orders, so the child may run any code.
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

/// Moves a page's mapping over another one, which is removed.
fn remap(from: *mut c_void, to: *mut c_void) -> io::Result<()> {
    // SAFETY: both are pages of our regions, and no reference into them exists.
    let moved = unsafe { libc::mremap(from, PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to) };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
