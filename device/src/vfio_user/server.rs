//! The server: listens, serves one client, then the next.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::event::PollFlags;
use tracing::{info, warn};

use super::{
    Backend, BindError, Interrupts, Patience,
    connection::{Connection, Ended},
    door::refuse_others,
    session::Session,
    socket::{Accepted, Listener, OUT_OF_RESOURCES_PAUSE},
    stop::{Interrupted, Stop},
};
use crate::sandbox::own_descriptors;

/// A vfio-user server on a UNIX socket of mode 0600.
///
/// One client is served at a time. Another that connects meanwhile is refused: its VERSION is answered with `EBUSY`. One
/// that connects once the first has closed its end is served as soon as the server is done with the first, so that a
/// QEMU started right after the last one ended never meets a refusal.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    patience: Patience,
}

impl Server {
    /// Binds the socket and listens. A stale socket (ours, and no process listens on it) is replaced; anything else at
    /// the path is an error. The path is unlinked when the server is dropped, if it is still this server's.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, BindError> {
        // Opened before any client is there: what it passes is looked up in it.
        let _ = own_descriptors();
        Listener::bind(path.as_ref()).map(|listener| Self { listener, patience: Patience::default() })
    }

    /// The same server with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// From now on a [guardian](crate::guardian) removes the path, not this server.
    pub fn leave_to_guardian(&mut self) {
        self.listener.leave_to_guardian();
    }

    /// Serves clients until `stop` is triggered, which ends it also in the middle of a message. An error only when
    /// the listening socket itself fails.
    pub fn run(&self, backend: &dyn Backend, interrupts: &Interrupts, stop: &Stop) -> io::Result<()> {
        loop {
            let waited = match self.listener.accept()? {
                Accepted::Client(socket) => {
                    match self.serve(socket, backend, interrupts, stop)? {
                        Ended::Stopped => return Ok(()),
                        Ended::Closed => info!("client disconnected"),
                        ended => warn!("client dropped: {ended}"),
                    }
                    continue;
                }
                Accepted::Nobody => stop.wait(self.listener.as_fd(), PollFlags::IN, None),
                Accepted::OutOfResources(error) => {
                    warn!(%error, "cannot accept a client; trying again");
                    stop.wait(stop.as_fd(), PollFlags::IN, Some(&OUT_OF_RESOURCES_PAUSE))
                }
            };
            match waited {
                Ok(()) => {}
                Err(Interrupted::Stopped) => return Ok(()),
                Err(Interrupted::Failed(error)) => return Err(error.into()),
            }
        }
    }

    /// Serves one client until it is gone, and refuses others meanwhile.
    fn serve(&self, socket: OwnedFd, backend: &dyn Backend, interrupts: &Interrupts, stop: &Stop) -> io::Result<Ended> {
        info!("client connected");
        // The session is dropped before its connection: a peer that sees the connection end finds the device ready.
        let connection = Connection::new(socket, stop, self.patience);
        let over = Stop::new()?;
        Ok(thread::scope(|scope| {
            let door = || refuse_others(&self.listener, &connection, &over);
            if let Err(error) = thread::Builder::new().name("vfio-user-door".into()).spawn_scoped(scope, door) {
                warn!(%error, "a second client will be left waiting: no thread to refuse it");
            }
            let _over = over.on_drop();
            Session::new(backend, interrupts).serve(&connection)
        }))
    }
}
