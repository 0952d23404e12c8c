//! The descriptors that come with a message.
//!
//! Only eventfds are of use: the device makes no DMA, so it never maps the memory whose descriptors it is given. All others
//! are closed as they come. A descriptor that is held keeps its other end alive: a client that sends its own end of the
//! connection and closes it would never be seen to go.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl, readlinkat},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use super::message::MAX_MSG_FDS;
use crate::sandbox::own_descriptors;

/// A descriptor that came with a message.
#[derive(Debug)]
pub(super) enum Descriptor {
    /// An eventfd, non-blocking.
    Eventfd(OwnedFd),
    /// Anything else. It is closed.
    Other,
}

impl Descriptor {
    /// Makes an eventfd non-blocking, so that a client that fills the counter cannot hold the device up. The flag is the open
    /// file's: the client sees it too.
    fn new(fd: OwnedFd) -> Self {
        let made = || -> Result<bool, Errno> {
            let link = readlinkat(own_descriptors()?, fd.as_raw_fd().to_string(), Vec::new())?;
            if link.as_bytes() != b"anon_inode:[eventfd]" {
                return Ok(false);
            }
            fcntl_setfl(fd.as_fd(), fcntl_getfl(fd.as_fd())? | OFlags::NONBLOCK)?;
            Ok(true)
        };
        if made() == Ok(true) { Self::Eventfd(fd) } else { Self::Other }
    }

    /// The eventfd. `EINVAL` if it is none: a write to a pipe could block the device.
    pub(super) fn eventfd(self) -> Result<OwnedFd, Errno> {
        match self {
            Self::Eventfd(fd) => Ok(fd),
            Self::Other => Err(Errno::INVAL),
        }
    }
}

/// The descriptors of the message being received. Those over the limit are closed as they come.
#[derive(Default)]
pub(super) struct Descriptors {
    fds: Vec<Descriptor>,
    lost: bool,
}

impl Descriptors {
    /// All that came. `EINVAL` when some were lost: more than [`MAX_MSG_FDS`] came, or they could not be taken.
    pub(super) fn all(self) -> Result<Vec<Descriptor>, Errno> {
        if self.lost { Err(Errno::INVAL) } else { Ok(self.fds) }
    }

    /// One recvmsg(2).
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
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
                        self.fds.push(Descriptor::new(fd));
                    } else {
                        self.lost = true;
                    }
                }
            }
        }
        Ok(received.bytes)
    }
}
