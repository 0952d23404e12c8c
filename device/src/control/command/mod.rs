//! The commands of the device: a table of small functions. Each is told in `docs/control-socket.md`.

mod event;
mod mailbox;
mod media;
mod poison;
mod ras;
mod session;
mod status;
mod watermark;

use std::sync::Arc;

use serde_json::{Value, json};

use super::protocol::{Arguments, CommandError, Commands};
use crate::{
    cxl::{
        event_record::Record,
        events::Log,
        failure::{CommandFailure, FailureError},
        ras::{Correctable, Header, Uncorrectable},
    },
    hdm::media::{Media, MediaError},
    store::Codec,
    vfio_user::{Interrupts, Stop},
};

/// Tells the guest what has not happened, or that it has not when it could; the medium itself is left alone.
pub trait Injector: Send + Sync {
    /// Low: the vector 12 interrupt and its event record.
    fn inject_low(&self);
    /// High: the vector 13 interrupt and its event record.
    fn inject_high(&self);
    /// A record in an event log.
    fn inject_event(&self, log: Log, record: Record);
    /// An uncorrectable protocol error in the RAS structure.
    fn inject_uncorrectable(&self, error: Uncorrectable, header: &Header);
    /// A correctable one.
    fn inject_correctable(&self, error: Correctable);
    /// Mailbox commands that fail. Returns how many were left to fail of what was told of their opcode before.
    fn fail_command(&self, failure: CommandFailure) -> Result<u64, FailureError>;
}

/// What the commands work on.
pub struct DeviceCommands {
    /// The medium.
    pub media: Arc<Media>,
    /// Where watermarks and events are signalled.
    pub injector: Arc<dyn Injector>,
    /// The interrupts of the vfio-user client, which tell whether there is one.
    pub interrupts: Arc<Interrupts>,
    /// What `quit` triggers.
    pub stop: Stop,
    /// The codec in use.
    pub codec: Codec,
    /// The kind of window: `fuse` or `trap`.
    pub window: &'static str,
}

/// A command: takes its arguments, does one thing, returns what QMP's `return` carries.
type Run = fn(&DeviceCommands, &mut Arguments) -> Result<Value, CommandError>;

/// Every command. The names with `cxl-inject-` are those scripts for QEMU's devices use.
const TABLE: &[(&str, Run)] = &[
    ("query-commands", session::query_commands),
    ("query-version", session::query_version),
    ("quit", session::quit),
    ("query-status", status::query_status),
    ("set-physical", media::set_physical),
    ("set-watermarks", media::set_watermarks),
    ("inject-low-watermark", watermark::inject_low),
    ("inject-high-watermark", watermark::inject_high),
    ("cxl-inject-ct3-lthresh-watermark", watermark::inject_low),
    ("cxl-inject-ct3-hthresh-watermark", watermark::inject_high),
    ("inject-event", event::inject),
    ("cxl-inject-general-media-event", event::general_media),
    ("cxl-inject-dram-event", event::dram),
    ("cxl-inject-memory-module-event", event::memory_module),
    ("cxl-inject-uncorrectable-errors", ras::uncorrectable),
    ("cxl-inject-correctable-error", ras::correctable),
    ("fail-command", mailbox::fail),
    ("query-poison", poison::query),
    ("inject-poison", poison::inject),
    ("cxl-inject-poison", poison::inject),
    ("clear-poison", poison::clear),
];

impl Commands for DeviceCommands {
    fn execute(&self, name: &str, mut arguments: Arguments) -> Result<Value, CommandError> {
        let (_, run) = TABLE.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            CommandError::not_found(format!("there is no command {name:?}; \"query-commands\" lists those there are"))
        })?;
        run(self, &mut arguments)
    }
}

impl From<MediaError> for CommandError {
    fn from(error: MediaError) -> Self {
        Self::generic(error.to_string())
    }
}

/// What a command returns that has nothing to tell.
fn nothing() -> Value {
    json!({})
}
