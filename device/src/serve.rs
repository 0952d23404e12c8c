//! Puts the rooms together: one device, served on one socket.
