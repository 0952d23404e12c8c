//! What the process gives up once its mount and its sockets are there: the guest is the attacker, and the process holds its
//! data.
//!
//! [`enter`] confines the calling thread and every thread it starts afterwards; so it is called before any of those that
//! serve is there. What still has to be done with more rights (unmount, remove the sockets) does the
//! [`guardian`](crate::guardian), which keeps the rights for that and no others. `docs/security.md` says what is left to a
//! process that was taken over, and `tests/sandbox` tries it.

mod landlock;
mod syscalls;
mod user;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};

use self::syscalls::Filters;
pub use self::user::{User, UserError};

/// Why the process cannot be confined. It must not serve then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The user cannot be changed.
    #[error("cannot become user {user}; --user needs root")]
    User {
        /// The user.
        user: User,
        /// The system's answer.
        source: io::Error,
    },
    /// A right cannot be given up.
    #[error("cannot give up {what}; --sandbox off keeps it, for debugging")]
    Keeps {
        /// What.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl SandboxError {
    fn keeps(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |error| Self::Keeps { what, source: error.into() }
    }
}

/// What the kernel lacks, so that the process keeps more than it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// No Landlock (Linux 5.13, and `landlock` in its list of security modules).
    pub landlock: bool,
    /// No seccomp filters, or none known for this processor.
    pub seccomp: bool,
}

impl Missing {
    /// What that means to the user, in a sentence. None if nothing is missing.
    pub fn warning(self) -> Option<&'static str> {
        match (self.landlock, self.seccomp) {
            (false, false) => None,
            (true, false) => Some(
                "this kernel has no Landlock: system calls are filtered, nothing else keeps a server that is taken over from files",
            ),
            (false, true) => Some(
                "this kernel has no seccomp filters: a server that is taken over reaches no files, but every system call",
            ),
            (true, true) => Some(
                "this kernel has neither Landlock nor seccomp filters: a server that is taken over has all rights of its user",
            ),
        }
    }
}

/// The directory `/proc/self/fd`, opened once: the only one that may be looked into from the sandbox. Its links name what kind
/// of descriptor a client has passed.
pub(crate) fn own_descriptors() -> Result<BorrowedFd<'static>, Errno> {
    static OPENED: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(opened) = OPENED.get() {
        return Ok(opened.as_fd());
    }
    let opened = openat(CWD, "/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(OPENED.get_or_init(|| opened).as_fd())
}

/// Confines the calling thread and every thread that it starts from now on; for good.
///
/// # Errors
/// A right is kept that this process can give up on any kernel. The process must not serve.
pub fn enter() -> Result<Missing, SandboxError> {
    load_symbols();
    let descriptors = own_descriptors().map_err(SandboxError::keeps("opening files: there is no /proc"))?;
    drop_capabilities(CapabilitySet::empty()).map_err(SandboxError::keeps("its capabilities"))?;
    hide_memory().map_err(SandboxError::keeps("being traced and dumped"))?;
    set_no_new_privs(true).map_err(SandboxError::keeps("gaining privileges"))?;
    let landlock = landlock::restrict()
        .map_err(|error| SandboxError::Keeps { what: "access to files", source: io::Error::other(error) })?;
    // Last: it forbids all of the above.
    let seccomp = match Filters::server(descriptors) {
        Some(filters) => filters
            .apply()
            .map_err(|error| SandboxError::Keeps { what: "system calls", source: io::Error::other(error) })?,
        None => false,
    };
    Ok(Missing { landlock: !landlock, seccomp: !seccomp })
}

/// Where backtraces are wanted (`RUST_BACKTRACE`), the names of functions are read now: a panic in the sandbox can open no file,
/// and finds what is loaded already.
fn load_symbols() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = backtrace.to_string();
    }
}

/// Whether this thread may mount and unmount.
pub(crate) fn may_mount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// The rights of a guardian. Made before it is a process of its own, which may not allocate.
pub(crate) struct GuardianRights {
    /// None: it starts a helper that is set-user-id.
    filters: Option<Filters>,
}

impl GuardianRights {
    /// Those of one that unmounts itself, or has `a_helper` do it.
    pub(crate) fn new(a_helper: bool) -> Self {
        Self { filters: if a_helper { None } else { Filters::guardian() } }
    }

    /// Gives up all others, as far as the kernel lets it. Async-signal-safe.
    pub(crate) fn keep_only(&self) {
        // To unmount, and to remove names from directories of other users.
        let kept = CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
        let _ = drop_capabilities(kept);
        let _ = hide_memory();
        if let Some(filters) = &self.filters {
            let _ = set_no_new_privs(true);
            let _ = filters.apply();
        }
    }
}

/// Gives up all capabilities of this thread but these, where it has them.
fn drop_capabilities(kept: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    drop_bounding_set(kept)?;
    let permitted = capabilities(None)?.permitted & kept;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

/// No program that this thread starts gets other capabilities than these. Without the right to say so it stays as it is, and
/// means nothing to a process that gains no privileges.
fn drop_bounding_set(kept: CapabilitySet) -> Result<(), Errno> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    let all = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in all.filter(|&capability| !kept.contains(capability)) {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last that this kernel has.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// No core file, and no other process of the same user reads the memory.
fn hide_memory() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}
