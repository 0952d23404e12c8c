//! The QMP-style control socket.
