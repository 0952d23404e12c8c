//! Survives failed memory: a handler catches and records SIGBUS, and replaces the lost page with zeros, so that the load can
//! go on.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cxl_cram_wire::memory::{Action, Fault};
use libc::{c_int, c_ulong, c_void, siginfo_t};

/// Signals recorded; further ones are only counted.
const KEPT: usize = 64;

/// Each signal's code, insignificant address bits and address, in one word, because a signal handler may take no lock. The
/// code is in the top byte, the bits in the next.
static FAULTS: [AtomicU64; KEPT] = [const { AtomicU64::new(0) }; KEPT];
static COUNT: AtomicUsize = AtomicUsize::new(0);
const CODE: u32 = 56;
const BITS: u32 = 48;

/// Installs the handler. With `early`, SIGBUS arrives as soon as the kernel knows that memory is lost (`PR_MCE_KILL_EARLY`),
/// otherwise when the program touches it.
///
/// # Errors
/// The kernel has no memory failure handling.
pub(super) fn install(early: bool) -> io::Result<()> {
    let when = if early { libc::PR_MCE_KILL_EARLY } else { libc::PR_MCE_KILL_LATE };
    // SAFETY: prctl with integers; it touches no memory of ours.
    let set = unsafe {
        libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET as c_ulong, when as c_ulong, 0 as c_ulong, 0 as c_ulong)
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is a sigaction; the handler does only what a signal handler may: atomics and one system call.
    let installed = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
    };
    if installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The signals so far, oldest first.
pub(super) fn faults() -> Vec<Fault> {
    let fault = |kept: &AtomicU64| {
        let kept = kept.load(Ordering::Acquire);
        let action = match (kept >> CODE) as c_int {
            libc::BUS_MCEERR_AR => Action::Required,
            libc::BUS_MCEERR_AO => Action::Optional,
            _ => Action::Other,
        };
        Fault { action, address: kept & ((1 << BITS) - 1), low_bits: (kept >> BITS) as u8 }
    };
    FAULTS.iter().take(COUNT.load(Ordering::Acquire)).map(fault).collect()
}

extern "C" fn handler(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a siginfo of SIGBUS. `si_addr_lsb` follows `si_addr` there (include/uapi/asm-generic/siginfo.h)
    // and has no name in libc.
    let (code, address, low_bits) = unsafe {
        let bits = info.cast::<u8>().add(24).cast::<i16>().read();
        ((*info).si_code, (*info).si_addr() as u64, bits as u64 & 0xff)
    };
    let kept = (code as u64 & 0xff) << CODE | low_bits << BITS | address & ((1 << BITS) - 1);
    if let Some(slot) = FAULTS.get(COUNT.fetch_add(1, Ordering::AcqRel)) {
        slot.store(kept, Ordering::Release);
    }
    if code == libc::BUS_MCEERR_AR {
        let page = (address & !0xfff) as *mut c_void;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page's content is lost already, so nothing valid is replaced.
        unsafe { libc::mmap(page, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    } else if code != libc::BUS_MCEERR_AO {
        // Not a memory failure: the same fault would repeat without end.
        // SAFETY: `_exit` may be called here.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
}
