//! Cleans up after a server that was killed: ends its connection and removes its mount.
//!
//! SIGKILL ends every thread but one that waits for write-back of the window. That wait cannot be interrupted, no
//! thread is left to answer it, and because its thread still has `/dev/fuse` open the kernel does not end the connection either: the server
//! would hang forever, and so would every client that touches the window. The guardian is a process that watches the
//! server, and aborts the connection when the server has been killed and is not gone. Once it is gone, the guardian
//! unmounts and removes the directory, which takes the right to unmount; without, the next server does it.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, waitpid};

/// How often the guardian looks, in milliseconds. A server that ends as it should is noticed at once.
const PERIOD: i32 = 250;
/// `/proc/PID/status` is shorter. Only its first lines are needed.
const STATUS: usize = 4096;

/// The process that watches this one. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Guardian {
    pid: Pid,
}

/// What the guardian needs, made before it is a process of its own: then it may not allocate.
struct Watch {
    /// Readable once all threads of the server are gone.
    server: OwnedFd,
    /// The server's `/proc/PID/status`.
    status: File,
    /// The connection's `abort`, where that file system is mounted.
    abort: Option<File>,
    /// Where the window is mounted.
    mount: CString,
}

impl Guardian {
    /// Starts one for a window of this process, mounted here, on this device.
    pub(super) fn start(mount: &Path, device: u64) -> io::Result<Self> {
        let abort = format!("/sys/fs/fuse/connections/{}/abort", rustix::fs::minor(device));
        let watch = Watch {
            server: pidfd_open(getpid(), PidfdFlags::empty())?,
            status: File::open("/proc/self/status")?,
            abort: OpenOptions::new().write(true).open(abort).ok(),
            mount: CString::new(mount.as_os_str().as_bytes())?,
        };
        // SAFETY: other threads may hold locks that are never released in the child, so it must call nothing but what is
        // async-signal-safe: `Watch::run` makes system calls only, allocates nothing and does not return.
        match unsafe { libc::fork() } {
            0 => watch.run(),
            pid => Pid::from_raw(pid).filter(|_| pid > 0).map(|pid| Self { pid }).ok_or_else(io::Error::last_os_error),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // It is this process's child, not waited for yet: the number is still its own.
        if let Err(error) =
            kill_process(self.pid, Signal::KILL).and_then(|()| waitpid(Some(self.pid), WaitOptions::empty()))
        {
            tracing::warn!(%error, "the window's guardian was not there any more");
        }
    }
}

impl Watch {
    fn run(&self) -> ! {
        // SAFETY: system calls on memory that lives through them; `PR_SET_NAME` takes a string that ends with 0.
        unsafe {
            // Ctrl-C is sent to the whole terminal: the server has to end then, and this after it.
            let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
            libc::prctl(libc::PR_SET_NAME, c"window-guardian".as_ptr());
        }
        let abort = self.abort.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // The server's sockets and /dev/fuse above all: a process that has them open appears to serve.
        close_all_but([self.server.as_raw_fd(), self.status.as_raw_fd(), abort]);
        while !self.gone(PERIOD) {
            if self.killed() {
                self.end_connection();
            }
        }
        // A server that ends in order ends this process first, and tidies up itself.
        self.tidy();
        // SAFETY: does not return, and runs no destructor.
        unsafe { libc::_exit(0) }
    }

    /// Whether the server is gone, or goes within so many milliseconds.
    fn gone(&self, milliseconds: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.server.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, alive through the call. It fails when this process is resumed after a stop.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) > 0 }
    }

    /// Whether the server was killed.
    fn killed(&self) -> bool {
        let mut text = [0u8; STATUS];
        // SAFETY: the buffer is alive through the call, and has the given length.
        let read = unsafe { libc::pread(self.status.as_raw_fd(), text.as_mut_ptr().cast(), text.len(), 0) };
        usize::try_from(read).ok().and_then(|len| text.get(..len)).is_some_and(is_killed)
    }

    fn end_connection(&self) {
        // SAFETY: memory that lives through the calls. Either may fail: then the other is what there is.
        unsafe {
            if let Some(abort) = &self.abort
                && libc::write(abort.as_raw_fd(), c"1".as_ptr().cast(), 1) == 1
            {
                return;
            }
            // Aborted even when it is too busy to be unmounted.
            libc::umount2(self.mount.as_ptr(), libc::MNT_FORCE);
        }
    }

    /// Unmounts, also while a client still maps the window, and removes the directory. The path has the number of the
    /// server's process in it: no other process has its mount there.
    fn tidy(&self) {
        // SAFETY: a string that lives through the calls. Whatever fails is left to the next server.
        unsafe {
            libc::umount2(self.mount.as_ptr(), libc::MNT_DETACH);
            libc::rmdir(self.mount.as_ptr());
        }
    }
}

/// Closes all file descriptors but these. A negative one is none.
fn close_all_but(mut kept: [RawFd; 3]) {
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > first {
            // SAFETY: nothing in this process uses them any more.
            unsafe { libc::close_range(first, fd - 1, 0) };
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    unsafe { libc::close_range(first, u32::MAX, 0) };
}

/// Whether `/proc/PID/status` is that of a process whose first thread has ended or has SIGKILL pending.
fn is_killed(status: &[u8]) -> bool {
    let mut lines = status.split(|byte| *byte == b'\n');
    lines.any(|line| {
        if let Some(state) = line.strip_prefix(b"State:") {
            matches!(state.trim_ascii().first(), Some(b'Z' | b'X'))
        } else {
            line.strip_prefix(b"SigPnd:").is_some_and(|pending| has_sigkill(pending.trim_ascii()))
        }
    })
}

/// Whether a mask of signals in hexadecimal has SIGKILL.
fn has_sigkill(mask: &[u8]) -> bool {
    let mask = std::str::from_utf8(mask).ok().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask & 1 << (libc::SIGKILL - 1) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_when_its_first_thread_is_a_zombie_or_has_sigkill_pending() {
        let status = |state: &str, pending: &str| {
            is_killed(
                format!("Name:\tdevice\nState:\t{state}\nThreads:\t3\nSigPnd:\t{pending}\nShdPnd:\t0\n").as_bytes(),
            )
        };
        assert!(status("Z (zombie)", "0000000000000000"));
        assert!(status("D (disk sleep)", "0000000000000100"));
        assert!(!status("D (disk sleep)", "0000000000004000"));
        assert!(!status("S (sleeping)", "0000000000000000"));
        assert!(!is_killed(b""));
    }
}
