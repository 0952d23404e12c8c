//! One connection: whole messages with their file descriptors in, whole replies out, however the stream is cut up.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

use super::{
    message::{HEADER_LEN, Header, MAX_MESSAGE, MAX_MSG_FDS},
    stop::{Interrupted, Stop},
};

/// A message that was framed correctly; nothing else about it has been checked.
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// `EINVAL` when some of the descriptors were lost: more than [`MAX_MSG_FDS`] came, or they could not be taken.
    pub(super) fds: Result<Vec<OwnedFd>, Errno>,
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
}

/// The descriptors of the message being received. Those over the limit are closed as they come.
#[derive(Default)]
struct Descriptors {
    fds: Vec<OwnedFd>,
    lost: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(socket: OwnedFd, stop: &'a Stop) -> Self {
        Self { socket, stop }
    }

    /// Waits for the next message.
    pub(super) fn receive(&self) -> Result<Message, Ended> {
        let mut descriptors = Descriptors::default();
        let mut bytes = [0; HEADER_LEN];
        self.fill(&mut bytes, &mut descriptors).map_err(|(ended, got)| match ended {
            Ended::Closed if got > 0 => Ended::ClosedInMessage,
            ended => ended,
        })?;
        let header = Header::parse(&bytes);
        let length = header.payload_len().ok_or(Ended::FramingLost(header.size))?;
        if !header.is_command() {
            return Err(Ended::NotACommand(header.id));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload, &mut descriptors).map_err(|(ended, _)| match ended {
            Ended::Closed => Ended::ClosedInMessage,
            ended => ended,
        })?;
        let fds = if descriptors.lost { Err(Errno::INVAL) } else { Ok(descriptors.fds) };
        Ok(Message { header, payload, fds })
    }

    /// Fills `buffer` and never reads past it, so that the descriptors of the next message stay with it. An error
    /// comes with the number of bytes that were received.
    fn fill(&self, buffer: &mut [u8], descriptors: &mut Descriptors) -> Result<(), (Ended, usize)> {
        let mut got = 0;
        while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
            if self.stop.is_triggered() {
                return Err((Ended::Stopped, got));
            }
            match descriptors.receive(self.socket.as_fd(), rest) {
                Ok(0) | Err(Errno::CONNRESET) => return Err((Ended::Closed, got)),
                Ok(count) => got += count,
                Err(Errno::AGAIN) => {
                    self.stop.wait(self.socket.as_fd(), PollFlags::IN, None).map_err(|why| (why.into(), got))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err((Ended::Socket(error), got)),
            }
        }
        Ok(())
    }

    /// Sends a reply whole, the descriptor with its first byte.
    pub(super) fn send(&self, reply: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Ended> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut sent = 0;
        while let Some(rest) = reply.get(sent..).filter(|rest| !rest.is_empty()) {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fd) = fd.as_ref().filter(|_| sent == 0) {
                control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(count) => sent += count,
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

impl Descriptors {
    /// One recvmsg(2).
    fn receive(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
        self.lost |= received.flags.contains(ReturnFlags::CTRUNC);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    // A client may attach descriptors to every byte: the limit is on the message, not on the read.
                    if self.fds.len() < MAX_MSG_FDS {
                        self.fds.push(fd);
                    } else {
                        self.lost = true;
                    }
                }
            }
        }
        Ok(received.bytes)
    }
}
