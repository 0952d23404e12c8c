//! Listening UNIX sockets: private from the first moment, and careful with a file that is already at the path.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    event::Timespec,
    fs::{FileType, Mode, Stat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// How long to leave a connection waiting when the process is out of descriptors or memory.
pub(crate) const OUT_OF_RESOURCES_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path cannot be the name of a UNIX socket.
    #[error("{path} cannot name a UNIX socket; choose a path of at most 107 bytes")]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} exists and is not a socket; choose another path or remove it")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another server is there.
    #[error("another server listens on {path}; stop it or choose another path")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A dead socket of another user is there.
    #[error("{path} is a stale socket of user id {uid}; remove it or choose another path")]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The system refused.
    #[error("cannot listen on {path}; check that its directory exists and is writable")]
    System {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A listening stream socket, mode 0600. Unlinks its path when dropped, if the socket there is still this one.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// The guardian removes it.
    left: bool,
    /// Device and inode of the socket at the path.
    identity: (u64, u64),
}

/// The result of accepting on a listening socket.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection.
    Client(OwnedFd),
    /// No connection waits.
    Nobody,
    /// A connection waits, and the process has no descriptor or memory for it: try again after
    /// [`OUT_OF_RESOURCES_PAUSE`], but do not wait for the listener, which is readable all the time.
    OutOfResources(Errno),
}

impl Listener {
    /// Binds and listens. A socket at the path is replaced only if no process listens on it and this user
    /// owns it.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let address = SocketAddrUnix::new(path).map_err(|_| BindError::BadPath { path: path.to_owned() })?;
        if path.as_os_str().is_empty() {
            return Err(BindError::BadPath { path: path.to_owned() });
        }
        let system = |source: Errno| BindError::System { path: path.to_owned(), source: source.into() };

        remove_stale(path, &address)?;
        let socket = stream_socket().map_err(system)?;
        // Linux gives the new path the mode of the socket's own inode (less the umask), so it is never wider than
        // this, not even between bind and a later chmod, and the umask of the process is left alone.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(system)?;
        rustix::net::bind(&socket, &address).map_err(|error| match error {
            Errno::ADDRINUSE => BindError::InUse { path: path.to_owned() },
            other => system(other),
        })?;
        let identity = rustix::fs::lstat(path).map(|stat| identity(&stat)).map_err(system)?;
        let listener = Self { socket, path: path.to_owned(), left: false, identity };
        rustix::net::listen(&listener.socket, BACKLOG).map_err(system)?;
        Ok(listener)
    }

    /// Takes a waiting connection, which does not block. An error only when the socket itself fails.
    pub(crate) fn accept(&self) -> Result<Accepted, Errno> {
        loop {
            return match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => Ok(Accepted::Client(socket)),
                Err(Errno::AGAIN) => Ok(Accepted::Nobody),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    Ok(Accepted::OutOfResources(error))
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the path to the guardian: this process has given up the right to remove it.
    pub(crate) fn leave_to_guardian(&mut self) {
        self.left = true;
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.left && rustix::fs::lstat(&self.path).is_ok_and(|stat| identity(&stat) == self.identity) {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Removes the socket of an earlier server.
///
/// # Errors
///
/// When the file at the path must not be removed.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let owned = || path.to_owned();
    let system = |source: Errno| BindError::System { path: owned(), source: source.into() };

    // Not through a symbolic link: its owner would choose the file that is removed.
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(system(error)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(BindError::NotASocket { path: owned() });
    }
    // Non-blocking, so that a server with a full backlog answers EAGAIN instead of holding us up.
    match rustix::net::connect(&stream_socket().map_err(system)?, address) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        _ => return Err(BindError::InUse { path: owned() }),
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(BindError::NotOurs { path: owned(), uid: stat.st_uid });
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(system(error)),
    }
}
