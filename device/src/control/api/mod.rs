//! The control protocol as types: what travels over the socket, for both ends.
//!
//! Each command is a type that holds its arguments and names its answer ([`Command::Ok`]). The device reads commands and
//! writes answers and [`Notification`]s; a client does the opposite with the same types, so neither spells a member's
//! name. `docs/control-socket.md` describes what the commands do.
//!
//! A client writes [`Execute`] and reads [`Message`], one a line. `qapi::Qmp` executes these commands as well, but only
//! on a connection without events: its events are a closed list of QEMU's own, and any other ends the conversation.
//!
//! ```
//! use cxl_cram_device::control::api::{Execute, Message, Physical, SetPhysical};
//!
//! let request = serde_json::to_string(&Execute::<_>::from(SetPhysical { size: 96 << 20 }))?;
//! assert_eq!(request, r#"{"execute":"set-physical","arguments":{"size":100663296}}"#);
//!
//! let answer = serde_json::from_str(r#"{"return":{"physical":100663296}}"#)?;
//! assert!(matches!(answer, Message::Return::<Physical>(Physical { physical: 100663296 })));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod argument;
mod inject;
mod message;
mod notification;
mod status;

pub use qapi_spec::Command;
use serde::{Deserialize, Serialize};

pub use self::{
    inject::{
        DelayCommand, EventCommon, EventComponent, FailCommand, InjectCorrectableError, InjectDramEvent, InjectEvent,
        InjectGeneralMediaEvent, InjectHighWatermark, InjectLowWatermark, InjectMemoryModuleEvent,
        InjectUncorrectableErrors, LoseInterrupt, Pending, UncorrectableError,
    },
    message::{Capabilities, Execute, Greeting, Message, Negotiation, QemuVersion, Refusal, Version},
    notification::{Event, Notification, Timestamp},
    status::{Blocks, Crossings, QueryStatus, Resident, Status},
};
pub use crate::cxl::delay::Phase;
use crate::hdm::media::{PoisonSource, Threshold};

/// The answer of a command that only acts: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Gives a type of arguments the command's name and the type of its answer.
macro_rules! command {
    ($arguments:ty, $name:literal => $answer:ty) => {
        impl $crate::control::api::Command for $arguments {
            type Ok = $answer;
            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }
    };
}
use command;

/// Lists the commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryCommands {}
command!(QueryCommands, "query-commands" => Vec<CommandName>);

/// A command that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandName {
    /// What `execute` takes.
    pub name: String,
}

/// Returns the version of the device program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryVersion {}
command!(QueryVersion, "query-version" => Version);

/// Stops the device. The answer comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quit {}
command!(Quit, "quit" => Done);

/// Changes how much media exists. Shrinking below what is used loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPhysical {
    /// Bytes, rounded down to 4 KiB.
    #[serde(deserialize_with = "argument::size")]
    pub size: u64,
}
command!(SetPhysical, "set-physical" => Physical);

/// The media that exists now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Physical {
    /// Bytes.
    pub physical: u64,
}

/// Changes both thresholds on free media.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWatermarks {
    /// Free media below this is the low crossing.
    #[serde(with = "argument::threshold")]
    pub low: Threshold,
    /// Free media above this is the high crossing.
    #[serde(with = "argument::threshold")]
    pub high: Threshold,
}
command!(SetWatermarks, "set-watermarks" => Done);

/// Lists the poisoned runs of a range, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryPoison {
    /// First byte (DPA).
    #[serde(default, deserialize_with = "argument::size")]
    pub start: u64,
    /// Bytes; to the end of the capacity if left out.
    #[serde(default, deserialize_with = "argument::some_size", skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}
command!(QueryPoison, "query-poison" => PoisonList);

/// Poisoned runs, or as many of them as fit in one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoisonList {
    /// The runs.
    pub records: Vec<PoisonRun>,
    /// The `start` of the next request, if there are more.
    pub more: Option<u64>,
}

/// A run of poisoned lines that have one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoisonRun {
    /// First byte (DPA).
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Why they are poisoned.
    pub source: PoisonSource,
}

/// Poisons the lines of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectPoison {
    /// First byte (DPA), a multiple of 64. QEMU's command calls it `start`; `dpa` is accepted as well.
    #[serde(alias = "dpa", deserialize_with = "argument::size")]
    pub start: u64,
    /// Bytes, a multiple of 64.
    #[serde(deserialize_with = "argument::size")]
    pub length: u64,
}
command!(InjectPoison, "inject-poison" => Done);

/// Clears the poison of a range. Lines that were poisoned read as zeros afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearPoison {
    /// First byte (DPA), a multiple of 64; `dpa` is accepted as well.
    #[serde(alias = "dpa", deserialize_with = "argument::size")]
    pub start: u64,
    /// Bytes, a multiple of 64.
    #[serde(deserialize_with = "argument::size")]
    pub length: u64,
}
command!(ClearPoison, "clear-poison" => Done);
