//! The control socket through its socket: the conversation, the commands, the events.
#![allow(clippy::unwrap_used, reason = "tests, and the helpers only tests call")]

mod api;
mod commands;
mod conversation;
mod events;
mod injection;
mod peer;
