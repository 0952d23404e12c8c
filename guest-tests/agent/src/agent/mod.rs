//! The guest's init and the agent.
//!
//! [`init`] is process 1: it mounts file systems, starts the agent as its child, and reaps. [`agent`] serves the harness.
//! They are two processes so that process 1 alone reaps orphans, and so that the agent's death does not go unnoticed:
//! process 1 reports it on the console and powers the guest off.

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

use cxl_cram_wire::protocol::{Hello, PORT_NAME, VERSION};

pub use init::init;
pub use serve::serve;

/// How long the agent waits for its port to appear.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// Loads the modules, opens the port, and serves the harness as long as the guest runs.
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

/// Opens the kernel's log for writing, so that messages are in order with the kernel's on the console.
fn kernel_log() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/kmsg")
}
