//! The commands of the device: one type of [`api`] each, and what the device does for it. `docs/control-socket.md`
//! describes them.

mod device;
mod event;
mod interrupt;
mod mailbox;
mod media;
mod poison;
mod ras;
mod session;
mod status;
mod watermark;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::device::DeviceCommands;
use super::{
    api,
    protocol::{Arguments, CommandError, Commands},
};

/// What the device does for a command.
trait Execute: api::Command<Ok: Serialize> + DeserializeOwned {
    /// Whether `path` is accepted and ignored: in QEMU's commands it names one of many devices, and here there is one.
    const HAS_PATH: bool = false;

    /// Does one thing, and returns the answer.
    fn execute(self, device: &DeviceCommands) -> Result<Self::Ok, CommandError>;
}

/// A command in the table: its name, and how to execute it.
struct Entry {
    name: &'static str,
    run: fn(&DeviceCommands, Arguments) -> Result<Value, CommandError>,
}

impl Entry {
    const fn of<C: Execute>() -> Self {
        Self::named::<C>(C::NAME)
    }

    /// The command under another name.
    const fn named<C: Execute>(name: &'static str) -> Self {
        Self { name, run: run::<C> }
    }
}

fn run<C: Execute>(device: &DeviceCommands, mut arguments: Arguments) -> Result<Value, CommandError> {
    if C::HAS_PATH {
        arguments.ignore("path");
    }
    let answer = arguments.into::<C>()?.execute(device)?;
    serde_json::to_value(answer).map_err(|why| CommandError::generic(format!("the answer is not JSON: {why}")))
}

/// Every command. The aliases are the names that scripts for QEMU's devices use.
const TABLE: &[Entry] = &[
    Entry::of::<api::QueryCommands>(),
    Entry::of::<api::QueryVersion>(),
    Entry::of::<api::Quit>(),
    Entry::of::<api::QueryStatus>(),
    Entry::of::<api::SetPhysical>(),
    Entry::of::<api::SetWatermarks>(),
    Entry::of::<api::InjectLowWatermark>(),
    Entry::of::<api::InjectHighWatermark>(),
    Entry::named::<api::InjectLowWatermark>("cxl-inject-ct3-lthresh-watermark"),
    Entry::named::<api::InjectHighWatermark>("cxl-inject-ct3-hthresh-watermark"),
    Entry::of::<api::InjectEvent>(),
    Entry::of::<api::InjectGeneralMediaEvent>(),
    Entry::of::<api::InjectDramEvent>(),
    Entry::of::<api::InjectMemoryModuleEvent>(),
    Entry::of::<api::InjectUncorrectableErrors>(),
    Entry::of::<api::InjectCorrectableError>(),
    Entry::of::<api::FailCommand>(),
    Entry::of::<api::DelayCommand>(),
    Entry::of::<api::LoseInterrupt>(),
    Entry::of::<api::QueryPoison>(),
    Entry::of::<api::InjectPoison>(),
    Entry::named::<api::InjectPoison>("cxl-inject-poison"),
    Entry::of::<api::ClearPoison>(),
];

impl Commands for DeviceCommands {
    fn execute(&self, name: &str, arguments: Arguments) -> Result<Value, CommandError> {
        let entry = TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| {
            CommandError::not_found(format!("there is no command {name:?}; \"query-commands\" lists the commands"))
        })?;
        (entry.run)(self, arguments)
    }
}
