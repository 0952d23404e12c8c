//! Living on after memory has failed: SIGBUS is caught, what it says is kept, and the page that is gone becomes a fresh one
//! of zeros, so that the load that met it can go on.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_ulong, c_void, siginfo_t};
use serde::{Deserialize, Serialize};

/// Signals kept; those beyond are counted only.
const KEPT: usize = 64;

/// Why SIGBUS came, how many bits of the address do not count, and the address: one word of each signal, because a
/// signal handler may take no lock. The code is in the top byte, the bits in the next.
static FAULTS: [AtomicU64; KEPT] = [const { AtomicU64::new(0) }; KEPT];
static COUNT: AtomicUsize = AtomicUsize::new(0);
const CODE: u32 = 56;
const BITS: u32 = 48;

/// What the kernel wants done about failed memory: the `si_code` of SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `BUS_MCEERR_AR`: this load met it, and cannot be answered.
    Required,
    /// `BUS_MCEERR_AO`: the memory is gone, but nobody has met it yet.
    Optional,
    /// SIGBUS for another reason.
    Other,
}

/// A SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Why.
    pub action: Action,
    /// `si_addr`.
    pub address: u64,
    /// `si_addr_lsb`: so many low bits of the address do not count.
    pub low_bits: u8,
}

/// From now on SIGBUS is survived. With `early`, it comes as soon as the kernel knows that memory is gone (`PR_MCE_KILL_EARLY`),
/// otherwise when the memory is met.
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
        // SAFETY: the page's content is lost, so nothing that anybody relies on is replaced.
        unsafe { libc::mmap(page, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    } else if code != libc::BUS_MCEERR_AO {
        // Not about failed memory, and it would come again for ever.
        // SAFETY: `_exit` may be called here.
        unsafe { libc::_exit(128 + libc::SIGBUS) };
    }
}
