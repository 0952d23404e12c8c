//! Programs that the harness starts: tied to its life, waited for with a limit, ended.
//!
//! - [`tied`]: starts a program that cannot outlive the harness.
//! - [`run`]: runs one program of a provisioning step to its end, with a log and limits.
//! - [`child`]: waits for a program's end, asks for it, forces it. [`interrupt`]: Ctrl-C ends them all.
//! - [`script`]: a script that starts a program again. [`sockets`]: a folder for the sockets between them.

pub(crate) mod child;
pub mod interrupt;
pub(crate) mod run;
pub(crate) mod script;
pub(crate) mod sockets;
pub(crate) mod tied;
