//! The door while a client is served: any other client is refused at once, with a reason, unless the one being served has
//! lost its place (see [`Patience`](super::Patience)).
//!
//! A client left waiting would give up only after its own timeout (QEMU's `x-msg-timeout`), and blame the device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt::socket_peercred},
};
use tracing::warn;

use super::{
    connection::Connection,
    message::{HEADER_LEN, Header},
    socket::{Accepted, Listener, OUT_OF_RESOURCES_PAUSE},
    stop::Stop,
};

/// How long a client may take to send the first message, which its refusal answers.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Refuses every client until `over` is triggered, or until the client being served is gone or was made to go: one that
/// connects after that is the next.
pub(super) fn refuse_others(listener: &Listener, served: &Connection<'_>, over: &Stop) {
    while over.wait(listener.as_fd(), PollFlags::IN, None).is_ok() {
        // In this order: a client that connected after the one being served had gone is not refused.
        if has_gone(served.as_fd()) {
            return;
        }
        if served.is_overdue() {
            warn!(pid = pid(served.as_fd()), "dropped a client that kept the device waiting, in favour of the next");
            served.end();
            return;
        }
        match listener.accept() {
            Ok(Accepted::Client(socket)) => refuse(&socket, over),
            Ok(Accepted::Nobody) => {}
            Ok(Accepted::OutOfResources(error)) | Err(error) => {
                warn!(%error, "cannot refuse a second client; trying again");
                if over.wait(over.as_fd(), PollFlags::IN, Some(&OUT_OF_RESOURCES_PAUSE)).is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether the other end has closed the connection, read or not.
fn has_gone(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// The process at the other end; 0 if it is not known.
fn pid(socket: BorrowedFd<'_>) -> i32 {
    socket_peercred(socket).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
}

/// Answers the first message, which is VERSION, with EBUSY, which the client then reports. A socket closed without an answer
/// would leave it guessing.
fn refuse(socket: &OwnedFd, over: &Stop) {
    warn!(pid = pid(socket.as_fd()), "refused a second client while one is attached: one QEMU at a time");
    if over.wait(socket.as_fd(), PollFlags::IN, Some(&PATIENCE)).is_err() {
        return;
    }
    // Room for the payload as well: data left unread when a socket is closed is an error at its other end.
    let mut message = [0; 4096];
    let Ok((got, _)) = recv(socket, &mut message, RecvFlags::DONTWAIT) else { return };
    if let Some(bytes) = message[..got].first_chunk::<HEADER_LEN>() {
        let reply = Header::parse(bytes).error_reply(Errno::BUSY);
        let _ = send(socket, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}
