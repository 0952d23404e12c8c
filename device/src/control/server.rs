//! The server: many clients, one thread, one `poll`.

use std::{io, os::fd::AsFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tracing::{debug, warn};

use super::{client::Client, events::Events, protocol::Commands};
use crate::vfio_user::{
    BindError, Stop,
    socket::{Accepted, Listener, OUT_OF_RESOURCES_PAUSE},
};

/// Clients at one time.
pub(super) const MAX_CLIENTS: usize = 8;

/// The control server on a UNIX socket of mode 0600.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// Binds the socket and listens, under the rules of [`crate::vfio_user::Server::bind`].
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, BindError> {
        Listener::bind(path.as_ref()).map(|listener| Self { listener })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// From now on a [guardian](crate::guardian) removes the path, not this server.
    pub fn leave_to_guardian(&mut self) {
        self.listener.leave_to_guardian();
    }

    /// Serves clients until `stop` is triggered. Commands are executed one at a time, across all clients.
    ///
    /// # Errors
    ///
    /// When the listening socket or `poll` fails.
    pub fn run(&self, commands: &dyn Commands, events: &Events, stop: &Stop) -> io::Result<()> {
        let mut clients: Vec<Client> = Vec::new();
        while !stop.is_triggered() {
            let accepting = self.accept(&mut clients)?;
            for event in events.take() {
                clients.retain_mut(|client| {
                    let kept = client.event(&event).is_ok();
                    if !kept {
                        warn!("dropped a control client that does not read its events");
                    }
                    kept
                });
            }
            clients.retain_mut(|client| client.advance(commands).is_ok());
            if !stop.is_triggered() {
                self.wait(&clients, events, stop, accepting)?;
            }
        }
        // The answer to `quit`, and whatever else fits without waiting.
        for client in &mut clients {
            let _ = client.flush();
        }
        Ok(())
    }

    /// Accepts every waiting client. Returns false if the process is out of descriptors or memory.
    fn accept(&self, clients: &mut Vec<Client>) -> io::Result<bool> {
        loop {
            match self.listener.accept()? {
                Accepted::Client(socket) if clients.len() < MAX_CLIENTS => {
                    debug!("control client connected");
                    clients.push(Client::new(socket));
                }
                Accepted::Client(socket) => {
                    Client::refuse(socket, &format!("there are {MAX_CLIENTS} clients already; try later"));
                }
                Accepted::Nobody => return Ok(true),
                Accepted::OutOfResources(error) => {
                    warn!(%error, "cannot accept a control client; trying again");
                    return Ok(false);
                }
            }
        }
    }

    fn wait(&self, clients: &[Client], events: &Events, stop: &Stop, accepting: bool) -> io::Result<()> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(events.wake_fd(), PollFlags::IN),
        ];
        if accepting {
            fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        fds.extend(clients.iter().map(|client| {
            let flags = if client.wants_to_send() { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(client.fd(), flags)
        }));
        match poll(&mut fds, (!accepting).then_some(&OUT_OF_RESOURCES_PAUSE)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
