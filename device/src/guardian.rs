//! A second process that tidies up after this one, however this one ends: it ends the window's connection, unmounts, and
//! removes the window's directory and the sockets.
//!
//! A server that ends as it should asks for that, since it has given up the right to do it itself (see
//! [`sandbox`]). Of a server that was killed, the guardian learns by watching it. SIGKILL ends every thread
//! but one that waits for write-back of the window. That wait cannot be interrupted, no thread is left to answer it, and
//! because its thread still has `/dev/fuse` open the kernel does not end the connection either: the server would hang
//! forever, and so would every client that touches the window. So the guardian aborts the connection when the server has
//! been killed and is not gone.
//!
//! It takes no input but two orders of one byte each, and confines itself to the system calls that they need.

use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    ptr,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid},
};

use crate::sandbox::{self, GuardianRights};

/// How often the guardian looks at a server whose end it is not notified of, in milliseconds.
const PERIOD: i32 = 250;
/// `/proc/PID/status` is shorter. Only its first lines are needed.
const STATUS: usize = 4096;

/// Order: end the window's connection, and answer with [`DONE`] or [`FAILED`].
const ABORT: u8 = b'a';
/// Order: tidy up and end.
const TIDY: u8 = b't';
const DONE: u8 = b'1';
const FAILED: u8 = b'0';

/// What a guardian removes besides a window, and how much it may do.
#[derive(Clone, Debug, Default)]
pub struct GuardianConfig {
    /// Sockets of this process. Each is removed if it is still the one that was there when the guardian started.
    pub sockets: Vec<PathBuf>,
    /// Whether it keeps all its rights, to be debugged.
    pub unconfined: bool,
}

/// The process that watches this one. Dropping it has it tidy up, and waits for its end.
#[derive(Debug)]
pub(crate) struct Guardian {
    pid: Pid,
    orders: OwnedFd,
}

/// What the guardian needs, made before it is a process of its own: then it may not allocate.
struct Watch {
    /// Orders come here; it ends when the server does.
    orders: OwnedFd,
    /// Readable once all threads of the server are gone.
    server: OwnedFd,
    /// The server's `/proc/PID/status`.
    status: File,
    window: Option<Window>,
    sockets: Vec<Socket>,
    /// The descriptors of all these, in order.
    kept: Vec<RawFd>,
    /// None: it keeps all its rights.
    rights: Option<GuardianRights>,
}

struct Window {
    /// The connection's `abort`, where that file system is mounted.
    abort: Option<File>,
    /// Where the window is mounted.
    mount: CString,
    /// Unmounts where the caller may not: its path and its arguments.
    helper: Option<[CString; 6]>,
}

struct Socket {
    directory: OwnedFd,
    name: CString,
    /// Device and inode.
    identity: (u64, u64),
}

impl Guardian {
    /// Starts one for this process, and for the window that it has mounted here on this device.
    ///
    /// # Errors
    /// There are no descriptors or processes left.
    pub(crate) fn start(window: Option<(&Path, u64)>, config: &GuardianConfig) -> io::Result<Self> {
        let (orders, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let window = window.map(|(mount, device)| Window::new(mount, device)).transpose()?;
        let sockets = config.sockets.iter().map(|path| Socket::new(path)).collect::<io::Result<Vec<_>>>()?;
        let helper = window.as_ref().is_some_and(|window| window.helper.is_some());
        let mut watch = Watch {
            orders: theirs,
            server: pidfd_open(getpid(), PidfdFlags::empty())?,
            status: File::open("/proc/self/status")?,
            window,
            sockets,
            kept: Vec::new(),
            rights: (!config.unconfined).then(|| GuardianRights::new(helper)),
        };
        watch.kept = watch.descriptors();
        // SAFETY: other threads may hold locks that are never released in the child, so it must call nothing but what is
        // async-signal-safe: `Watch::run` makes system calls only, allocates nothing and does not return.
        match unsafe { libc::fork() } {
            0 => watch.run(),
            pid => {
                let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?;
                Ok(Self { pid, orders })
            }
        }
    }

    /// Ends the window's connection, so that threads that wait for requests return, also while a client maps the file.
    /// False if that is not permitted: then they end when the last client lets go of it.
    pub(crate) fn abort(&self) -> bool {
        let mut answer = [FAILED];
        let asked = send(&self.orders, &[ABORT], SendFlags::NOSIGNAL);
        let answered = asked.and_then(|_| {
            loop {
                match recv(&self.orders, &mut answer, RecvFlags::empty()) {
                    Err(Errno::INTR) => {}
                    other => return other,
                }
            }
        });
        answered.is_ok_and(|(got, _)| got == 1) && answer == [DONE]
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let asked = send(&self.orders, &[TIDY], SendFlags::NOSIGNAL).map(drop);
        let waited = loop {
            // It is this process's child, not waited for yet: the number is still its own.
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                other => break other.map(drop),
            }
        };
        if let Err(error) = asked.and(waited) {
            tracing::warn!(%error, "the guardian was killed before this server: the next server on the same paths tidies up");
        }
    }
}

impl Window {
    fn new(mount: &Path, device: u64) -> io::Result<Self> {
        let abort = format!("/sys/fs/fuse/connections/{}/abort", rustix::fs::minor(device));
        let mount = CString::new(mount.as_os_str().as_bytes())?;
        let helper = if sandbox::may_mount() { None } else { find_helper() };
        let helper = helper.map(|path| [path, c"-u".into(), c"-z".into(), c"-q".into(), c"--".into(), mount.clone()]);
        Ok(Self { abort: OpenOptions::new().write(true).open(abort).ok(), mount, helper })
    }

    /// Whether the connection is ended now.
    fn abort(&self) -> bool {
        // SAFETY: memory that lives through the calls. Either may fail: then the other is what there is.
        unsafe {
            if let Some(abort) = &self.abort
                && libc::write(abort.as_raw_fd(), c"1".as_ptr().cast(), 1) == 1
            {
                return true;
            }
            // Aborted even when it is too busy to be unmounted.
            libc::umount2(self.mount.as_ptr(), libc::MNT_FORCE) == 0 || *libc::__errno_location() == libc::EBUSY
        }
    }

    /// Unmounts, also while a client still maps the window, and removes the directory. The path has the number of the
    /// server's process in it: no other process has its mount there.
    fn remove(&self) {
        // SAFETY: strings that live through the calls. Whatever fails is left to the next server.
        unsafe {
            if libc::umount2(self.mount.as_ptr(), libc::MNT_DETACH) != 0
                && let Some(helper) = &self.helper
            {
                unmount_by(helper);
            }
            libc::rmdir(self.mount.as_ptr());
        }
    }
}

/// Has the helper unmount, and waits for it.
fn unmount_by(helper: &[CString; 6]) {
    let [path, one, two, three, four, five] = helper.each_ref().map(|argument| argument.as_ptr());
    let arguments = [path, one, two, three, four, five, ptr::null()];
    let environment = [ptr::null()];
    // SAFETY: the process has one thread; the child only starts another program; all strings and arrays live until then.
    unsafe {
        match libc::fork() {
            0 => {
                libc::execve(path, arguments.as_ptr(), environment.as_ptr());
                libc::_exit(1)
            }
            child if child > 0 => {
                libc::waitpid(child, ptr::null_mut(), 0);
            }
            _ => {}
        }
    }
}

/// `fusermount3`, as a shell would find it.
fn find_helper() -> Option<CString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let found = std::env::split_paths(&path).map(|folder| folder.join("fusermount3")).find(|path| path.is_file());
    CString::new(found?.as_os_str().as_bytes()).ok()
}

impl Socket {
    fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(Errno::NOTSOCK.into());
        }
        Ok(Self { directory, name: CString::new(name.as_bytes())?, identity: (stat.st_dev, stat.st_ino) })
    }

    fn remove(&self) {
        let name: &CStr = &self.name;
        let stat = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

impl Watch {
    fn descriptors(&self) -> Vec<RawFd> {
        let mut kept = vec![self.orders.as_raw_fd(), self.server.as_raw_fd(), self.status.as_raw_fd()];
        kept.extend(self.window.iter().filter_map(|window| window.abort.as_ref()).map(AsRawFd::as_raw_fd));
        kept.extend(self.sockets.iter().map(|socket| socket.directory.as_raw_fd()));
        kept.sort_unstable();
        kept
    }

    fn run(&self) -> ! {
        // SAFETY: system calls on memory that lives through them; `PR_SET_NAME` takes a string that ends with 0.
        unsafe {
            // Ctrl-C is sent to the whole terminal: the server has to end then, and this after it.
            let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut());
            libc::prctl(libc::PR_SET_NAME, c"window-guardian".as_ptr());
        }
        // The server's sockets and /dev/fuse above all: a process that has them open appears to serve.
        close_all_but(&self.kept);
        if let Some(rights) = &self.rights {
            rights.keep_only();
        }
        let mut heard = true;
        while !self.gone(&mut heard) {
            if self.killed()
                && let Some(window) = &self.window
            {
                window.abort();
            }
        }
        if let Some(window) = &self.window {
            window.remove();
        }
        self.sockets.iter().for_each(Socket::remove);
        // SAFETY: does not return, and runs no destructor.
        unsafe { libc::_exit(0) }
    }

    /// Waits. True once the server is gone, or has asked to tidy up. `heard` becomes false when it can give no more orders.
    fn gone(&self, heard: &mut bool) -> bool {
        let fd = if *heard { self.orders.as_raw_fd() } else { -1 };
        let mut poll = [self.server.as_raw_fd(), fd].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: two entries, alive through the call. It fails when this process is resumed after a stop.
        if unsafe { libc::poll(poll.as_mut_ptr(), 2, PERIOD) } <= 0 {
            return false;
        }
        let [server, orders] = poll;
        if server.revents != 0 {
            return true;
        }
        let mut order = [0];
        match (orders.revents != 0).then(|| recv(&self.orders, &mut order, RecvFlags::empty())) {
            Some(Ok((1, _))) if order == [TIDY] => return true,
            Some(Ok((1, _))) if order == [ABORT] => {
                let done = self.window.as_ref().is_some_and(Window::abort);
                let _ = send(&self.orders, &[if done { DONE } else { FAILED }], SendFlags::NOSIGNAL);
            }
            Some(Ok((1, _))) | None => {}
            Some(_) => *heard = false,
        }
        false
    }

    /// Whether the server was killed.
    fn killed(&self) -> bool {
        let mut text = [0u8; STATUS];
        // SAFETY: the buffer is alive through the call, and has the given length.
        let read = unsafe { libc::pread(self.status.as_raw_fd(), text.as_mut_ptr().cast(), text.len(), 0) };
        usize::try_from(read).ok().and_then(|len| text.get(..len)).is_some_and(is_killed)
    }
}

/// Closes all file descriptors but these, which are in order.
fn close_all_but(kept: &[RawFd]) {
    let mut first = 0;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
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
