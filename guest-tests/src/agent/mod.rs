//! The guest's init and the agent.
//! [`init`] is process 1: it mounts, starts the agent as a child of its own and reaps. [`agent`] serves the
//! harness. They are two processes so that process 1 alone reaps orphans, and so that the death of the agent has a
//! witness: process 1 says so on the console and switches the guest off.

mod files;
mod init;
mod modules;
mod port;
mod programs;
mod serve;
mod trace;

use std::fs::{File, OpenOptions};
use std::io;
use std::time::Duration;

pub use init::{DIED, init};
pub use modules::{MODULES_DIR, ON_DEMAND_DIR};
pub use serve::serve;

use crate::protocol::{Hello, PORT_NAME, VERSION};

/// How long the agent waits for its port to appear.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// Loads the modules, opens the port and serves the harness for as long as the guest lives.
///
/// # Errors
/// The port does not appear, or breaks.
pub fn agent() -> io::Result<()> {
    let modules = modules::load_all();
    let path = port::find(PORT_NAME, PORT_LIMIT)?;
    let port = OpenOptions::new().read(true).write(true).open(path)?;
    let reader = port::Reader::new(port.try_clone()?);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    serve(reader, Box::new(port), Hello { version: VERSION, kernel, modules })
}

/// Opens the kernel's log for writing, so that a message has the kernel's own order on the console.
fn kernel_log() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/kmsg")
}
