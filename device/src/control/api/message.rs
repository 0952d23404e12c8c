//! What carries commands, answers and events: QMP's envelopes, the greeting and the negotiation.

pub use qapi_spec::Execute;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Done, Notification};

/// A line that the device sends after its greeting. `T` is the answer of the command that the client waits for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Line<T>")]
pub enum Message<T> {
    /// The command succeeded.
    Return(T),
    /// The command failed.
    Error(Refusal),
    /// Not an answer: something happened.
    Event(Notification),
}

/// A line of a kind that is not known yet. Not an untagged enum: that one cannot read the numbers that are the keys of
/// [`super::Status::interrupts`], and its errors do not name the member that is wrong.
#[derive(Deserialize)]
struct Line<T> {
    #[serde(rename = "return")]
    answer: Option<T>,
    error: Option<Refusal>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl<T> TryFrom<Line<T>> for Message<T> {
    type Error = serde_json::Error;

    fn try_from(line: Line<T>) -> Result<Self, serde_json::Error> {
        Ok(match (line.answer, line.error) {
            (Some(answer), _) => Self::Return(answer),
            (None, Some(refusal)) => Self::Error(refusal),
            (None, None) => Self::Event(serde_json::from_value(Value::Object(line.rest))?),
        })
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `GenericError` or `CommandNotFound`.
    pub class: qapi_spec::ErrorClass,
    /// A sentence for people.
    pub desc: String,
}

/// The first line that the device sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What QMP clients look for.
    #[serde(rename = "QMP")]
    pub qmp: Capabilities,
}

/// The device's version and what it offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The device program.
    pub version: Version,
    /// Capabilities to negotiate: none.
    pub capabilities: Vec<String>,
}

/// A version as QMP has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the device program. The member has this name because `qmp-shell` looks for it.
    pub qemu: QemuVersion,
    /// Name and version of the device program.
    pub package: String,
}

/// A version's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct QemuVersion {
    pub major: u64,
    pub minor: u64,
    pub micro: u64,
}

/// `qmp_capabilities`, the first command of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Negotiation {
    /// The capabilities to enable. The device offers none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enable: Vec<Value>,
}
super::command!(Negotiation, "qmp_capabilities" => Done);

impl<T> Message<T> {
    /// The answer, or None for an event.
    ///
    /// # Errors
    ///
    /// The refusal, if the command failed.
    pub fn answer(self) -> Result<Option<T>, Refusal> {
        match self {
            Self::Return(answer) => Ok(Some(answer)),
            Self::Error(refusal) => Err(refusal),
            Self::Event(_) => Ok(None),
        }
    }
}
