//! The control socket: QMP's conversation in JSON, so that qmp-shell and scripts written for QEMU work.
//!
//! [`api`] is the protocol as types, for both ends. [`Server`] speaks it and knows no command: those are behind
//! [`Commands`]. [`DeviceCommands`] are the commands of this device. [`Events`] carries what happens to every client, from
//! any thread, without waiting.
//! `docs/control-socket.md` is for users.

pub mod api;
mod client;
pub mod command;
mod events;
mod protocol;
mod server;

pub use command::DeviceCommands;
pub use events::Events;
pub use protocol::{Arguments, CommandError, Commands, ErrorClass};
pub use server::Server;
