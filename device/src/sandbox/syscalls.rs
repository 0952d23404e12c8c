//! seccomp: which system calls there are, and with which arguments.
//!
//! Three answers to a call that the server does not need:
//!
//! - the process is **killed** for what only an intruder tries: to start a program, to trace, mount, connect, signal, ...
//! - **EPERM** for the rest. The C library and the standard library look for files now and then and can do without (to print
//!   a backtrace, to count processors); a device that dies of that has lost the guest's memory for nothing.
//! - `clone3` does **not exist** (ENOSYS): a filter cannot see its arguments, and the C library then uses `clone`.
//!
//! The kernel evaluates all filters and takes the strictest answer, so each answer is a filter of its own.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// `cachestat(2)`, newer than the C library's headers; one number on every processor.
const SYS_CACHESTAT: c_long = 451;
/// `prctl(2)`: name a mapping.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// What the server calls with any arguments: on descriptors that it has, on its own memory, threads and clocks.
const SERVER: &[c_long] = &[
    // Messages, /dev/fuse, the window's file, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_sync_file_range,
    libc::SYS_fadvise64,
    SYS_CACHESTAT,
    libc::SYS_ppoll,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_eventfd2,
    // Memory; mmap and mprotect are below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    // Signals to itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Clocks, where the processor has none to read.
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // Seeds of hash tables, identifiers.
    libc::SYS_getrandom,
    // Who it is; libraries take for granted that these cannot fail.
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// What the guardian calls.
const GUARDIAN: &[c_long] = &[
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_umount2,
    libc::SYS_newfstatat,
    libc::SYS_unlinkat,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
];

/// What neither they nor any library of theirs ever calls. `umount2` is not here: the guardian unmounts, and the crate `fuser`
/// tries to when the window's start fails.
const INTRUDER: &[c_long] = &[
    // Another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The network, and the sockets of others.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    // The tree of files.
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    // Namespaces, identity and rights.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The kernel's own machinery.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Compiled filters, in the order in which they are installed.
pub(super) struct Filters([BpfProgram; 3]);

impl Filters {
    /// The server's. None if there are none for this processor.
    pub(super) fn server(descriptors: BorrowedFd<'_>) -> Option<Self> {
        Self::compile(SERVER, limited(descriptors.as_raw_fd() as u64).ok()?)
    }

    /// The guardian's.
    pub(super) fn guardian() -> Option<Self> {
        Self::compile(GUARDIAN, BTreeMap::new())
    }

    fn compile(allowed: &[c_long], mut rules: BTreeMap<i64, Vec<SeccompRule>>) -> Option<Self> {
        let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
        let errno = |errno: i32| SeccompAction::Errno(errno as u32);
        let always = |calls: &[c_long]| -> BTreeMap<i64, Vec<SeccompRule>> {
            calls.iter().map(|&call| (call, Vec::new())).collect()
        };
        let program = |rules, otherwise, then| -> Option<BpfProgram> {
            SeccompFilter::new(rules, otherwise, then, arch).ok()?.try_into().ok()
        };
        rules.extend(always(allowed));
        // What another filter answers; of two errors the last filter's would count.
        rules.extend(always(&[libc::SYS_clone3]));
        Some(Self([
            program(always(&[libc::SYS_clone3]), SeccompAction::Allow, errno(libc::ENOSYS))?,
            program(always(INTRUDER), SeccompAction::Allow, SeccompAction::KillProcess)?,
            // Last: it forbids to install another.
            program(rules, errno(libc::EPERM), SeccompAction::Allow)?,
        ]))
    }

    /// Installs them for the calling thread and those it starts. False if the kernel has no filters. Async-signal-safe.
    ///
    /// # Errors
    /// The kernel takes some of them only.
    pub(super) fn apply(&self) -> Result<bool, seccompiler::Error> {
        let [first, rest @ ..] = &self.0;
        if apply_filter(first).is_err() {
            return Ok(false);
        }
        rest.iter().try_for_each(|program| apply_filter(program))?;
        Ok(true)
    }
}

/// What the server calls with some arguments only.
fn limited(descriptors: u64) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let rule = |argument, op, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?])
    };
    let one_of = |argument, values: &[u64]| -> Result<Vec<_>, BackendError> {
        values.iter().map(|&value| rule(argument, Eq, value)).collect()
    };
    // No memory that can be executed.
    let no_code = || rule(2, MaskedEq(libc::PROT_EXEC as u64), 0);
    // Threads, and no processes or namespaces.
    let new = libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let thread = MaskedEq((libc::CLONE_THREAD | new) as u32 as u64);
    let commands =
        [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC, libc::F_GET_SEALS];
    // A limit may be read: no new one is given.
    let reads_limit = SeccompRule::new(vec![
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, Eq, 0)?,
        SeccompCondition::new(2, SeccompCmpArgLen::Qword, Eq, 0)?,
    ])?;
    Ok(BTreeMap::from([
        (libc::SYS_mmap, vec![no_code()?]),
        (libc::SYS_mprotect, vec![no_code()?]),
        (libc::SYS_clone, vec![rule(0, thread, libc::CLONE_THREAD as u64)?]),
        (libc::SYS_fcntl, one_of(1, &commands.map(|command| command as u64))?),
        (libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME as u64, PR_SET_VMA])?),
        (libc::SYS_prlimit64, vec![reads_limit]),
        // To end itself.
        (libc::SYS_tgkill, vec![rule(0, Eq, u64::from(std::process::id()))?]),
        // What kind of descriptor a client has passed.
        (libc::SYS_readlinkat, vec![rule(0, Eq, descriptors)?]),
    ]))
}
