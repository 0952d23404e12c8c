//! One connection: whole messages with their file descriptors in, whole replies out, however the stream is cut up.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use parking_lot::Mutex;
use rustix::{
    event::PollFlags,
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown},
};

use super::{
    Patience,
    descriptors::{Descriptor, Descriptors},
    message::{HEADER_LEN, Header, MAX_MESSAGE},
    stop::{Interrupted, Stop},
};

/// A message that was framed correctly; nothing else about it has been checked.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// `EINVAL` when some of the descriptors were lost: more came than may, or they could not be taken.
    pub(super) fds: Result<Vec<Descriptor>, Errno>,
}

/// Why no more messages come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the server is stopping")]
    Stopped,
    #[error("the client closed the connection")]
    Closed,
    #[error("the client closed the connection in the middle of a message")]
    ClosedInMessage,
    #[error("a message claims {0} bytes, outside {HEADER_LEN}..={MAX_MESSAGE}: where the next begins is not known")]
    FramingLost(u32),
    #[error("message {0} is not a command")]
    NotACommand(u16),
    #[error("the socket failed: {0}")]
    Socket(Errno),
}

impl From<Interrupted> for Ended {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Stopped => Self::Stopped,
            Interrupted::Failed(errno) => Self::Socket(errno),
        }
    }
}

/// A connected, non-blocking stream socket.
pub(super) struct Connection<'a> {
    socket: OwnedFd,
    stop: &'a Stop,
    patience: Patience,
    accepted: Instant,
    /// When the client has kept the server waiting for long enough to make room for another. `None` while it may take its
    /// time, or the server takes its own.
    overdue: Mutex<Option<Instant>>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(socket: OwnedFd, stop: &'a Stop, patience: Patience) -> Self {
        Self { socket, stop, patience, accepted: Instant::now(), overdue: Mutex::default() }
    }

    /// Whether the client keeps the server waiting for longer than it may while another client waits.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.lock().is_some_and(|overdue| overdue <= Instant::now())
    }

    /// Ends the connection, from any thread: what waits for the client finds it closed.
    pub(super) fn end(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Waits for the next message. A client that has `agreed` on a version may take its time with it, though not once it has
    /// begun.
    pub(super) fn receive(&self, agreed: bool) -> Result<Message, Ended> {
        *self.overdue.lock() = self.accepted.checked_add(self.patience.version).filter(|_| !agreed);
        let message = self.receive_whole(agreed);
        *self.overdue.lock() = None;
        message
    }

    fn receive_whole(&self, agreed: bool) -> Result<Message, Ended> {
        let mut descriptors = Descriptors::default();
        let mut bytes = [0; HEADER_LEN];
        self.fill(&mut bytes, &mut descriptors, agreed).map_err(|(ended, got)| match ended {
            Ended::Closed if got > 0 => Ended::ClosedInMessage,
            ended => ended,
        })?;
        let header = Header::parse(&bytes);
        let length = header.payload_len().ok_or(Ended::FramingLost(header.size))?;
        if !header.is_command() {
            return Err(Ended::NotACommand(header.id));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload, &mut descriptors, agreed).map_err(|(ended, _)| match ended {
            Ended::Closed => Ended::ClosedInMessage,
            ended => ended,
        })?;
        Ok(Message { header, payload, fds: descriptors.all() })
    }

    /// Fills `buffer` and never reads past it, so that the descriptors of the next message stay with it. An error
    /// comes with the number of bytes that were received.
    fn fill(&self, buffer: &mut [u8], descriptors: &mut Descriptors, agreed: bool) -> Result<(), (Ended, usize)> {
        let mut got = 0;
        while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
            if self.stop.is_triggered() {
                return Err((Ended::Stopped, got));
            }
            match descriptors.receive(self.socket.as_fd(), rest) {
                Ok(0) | Err(Errno::CONNRESET) => return Err((Ended::Closed, got)),
                Ok(count) => {
                    got += count;
                    if agreed {
                        self.progressed();
                    }
                }
                Err(Errno::AGAIN) => {
                    self.stop.wait(self.socket.as_fd(), PollFlags::IN, None).map_err(|why| (why.into(), got))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err((Ended::Socket(error), got)),
            }
        }
        Ok(())
    }

    /// The client has sent or taken a part of a message: for the rest it has its time again.
    fn progressed(&self) {
        *self.overdue.lock() = Instant::now().checked_add(self.patience.message);
    }

    /// Sends a reply whole, the descriptor with its first byte.
    pub(super) fn send(&self, reply: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Ended> {
        self.progressed();
        let sent = self.send_whole(reply, fd);
        *self.overdue.lock() = None;
        sent
    }

    fn send_whole(&self, reply: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Ended> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut sent = 0;
        while let Some(rest) = reply.get(sent..).filter(|rest| !rest.is_empty()) {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fd) = fd.as_ref().filter(|_| sent == 0) {
                control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(count) => {
                    sent += count;
                    self.progressed();
                }
                Err(Errno::AGAIN) => self.stop.wait(self.socket.as_fd(), PollFlags::OUT, None)?,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Ended::Closed),
                Err(error) => return Err(Ended::Socket(error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
