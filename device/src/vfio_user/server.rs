//! The server: listens, serves one client, then the next.

use std::{io, path::Path};

use rustix::{
    event::{PollFlags, Timespec},
    io::Errno,
};
use tracing::{info, warn};

use super::{
    Backend, BindError, Interrupts,
    connection::{Connection, Ended},
    session::Session,
    socket::Listener,
    stop::{Interrupted, Stop},
};

/// How long to leave a connection waiting when the process is out of descriptors or memory.
const OUT_OF_RESOURCES_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A vfio-user server on a UNIX socket of mode 0600.
///
/// One client is served at a time. Another that connects meanwhile waits: it is served as soon as the first is gone,
/// so that a QEMU started right after the last one ended never meets a refusal. (QEMU itself gives up after its
/// `x-msg-timeout`, 5 s.)
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Binds the socket and listens. A stale socket (ours, and nobody listens on it) is replaced; anything else at
    /// the path is an error. The path is unlinked when the server is dropped, if it is still this server's.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, BindError> {
        Listener::bind(path.as_ref()).map(|listener| Self { listener })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves clients until `stop` is triggered, which ends it also in the middle of a message. An error only when
    /// the listening socket itself fails.
    pub fn run(&self, backend: &dyn Backend, interrupts: &Interrupts, stop: &Stop) -> io::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => match stop.wait(rustix::fd::AsFd::as_fd(&self.listener), PollFlags::IN, None) {
                    Ok(()) => continue,
                    Err(Interrupted::Stopped) => return Ok(()),
                    Err(Interrupted::Failed(error)) => return Err(error.into()),
                },
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    warn!(%error, "cannot accept a client; trying again");
                    // Not on the listener, which is readable all the time.
                    match stop.wait(rustix::fd::AsFd::as_fd(stop), PollFlags::IN, Some(&OUT_OF_RESOURCES_PAUSE)) {
                        Ok(()) => continue,
                        Err(Interrupted::Stopped) => return Ok(()),
                        Err(Interrupted::Failed(error)) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            info!("client connected");
            // The session is dropped before its connection: whoever sees the connection end finds the device ready.
            let connection = Connection::new(socket, stop);
            let ended = Session::new(backend, interrupts).serve(&connection);
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Closed => info!("client disconnected"),
                ended => warn!("client dropped: {ended}"),
            }
        }
    }
}
