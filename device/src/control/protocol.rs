//! Requests, answers and the greeting, as JSON.

pub use qapi_spec::ErrorClass;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::api::{Capabilities, Greeting, QemuVersion, Refusal, Version};

/// Why a command failed, as reported to the client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{description}")]
pub struct CommandError {
    /// The kind of error.
    pub class: ErrorClass,
    /// A sentence for people.
    pub description: String,
}

impl CommandError {
    /// An error about anything but the command's name.
    pub fn generic(description: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, description: description.into() }
    }

    /// An error about the command's name.
    pub fn not_found(description: impl Into<String>) -> Self {
        Self { class: ErrorClass::CommandNotFound, description: description.into() }
    }
}

/// What can be executed.
pub trait Commands: Send + Sync {
    /// Executes one command. Called from the thread that is in [`super::Server::run`], one at a time.
    fn execute(&self, name: &str, arguments: Arguments) -> Result<Value, CommandError>;
}

/// The arguments of a command, as they came.
#[derive(Clone, Debug, Default)]
pub struct Arguments(Map<String, Value>);

impl Arguments {
    /// These arguments.
    pub fn new(arguments: Map<String, Value>) -> Self {
        Self(arguments)
    }

    /// Drops an argument, if it is there.
    pub(super) fn ignore(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The arguments as a type. One that the type does not have is an error, so that a misspelt one is noticed.
    pub fn into<T: DeserializeOwned>(self) -> Result<T, CommandError> {
        serde_path_to_error::deserialize(Value::Object(self.0)).map_err(|error| {
            let (place, why) = (error.path().to_string(), error.inner());
            CommandError::generic(match place.as_str() {
                "." => format!("the arguments are not valid: {why}"),
                place => format!("the argument {place:?} is not valid: {why}"),
            })
        })
    }
}

/// A request that has the right form.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) arguments: Arguments,
    pub(super) id: Option<Value>,
}

/// Reads a request. The error comes with the id to answer it with.
pub(super) fn parse_request(value: Value) -> Result<Request, (CommandError, Option<Value>)> {
    let Value::Object(mut members) = value else {
        return Err((CommandError::generic("a request is a JSON object"), None));
    };
    let id = members.remove("id");
    let refuse = |why: String| (CommandError::generic(why), id.clone());
    let name = match members.remove("execute") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(refuse("\"execute\" is a string: the command's name".into())),
        None if members.contains_key("exec-oob") => {
            return Err(refuse("out-of-band execution is not offered; use \"execute\"".into()));
        }
        None => return Err(refuse("the request has no \"execute\"".into())),
    };
    let arguments = match members.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(refuse("\"arguments\" is a JSON object".into())),
    };
    if let Some(name) = members.keys().next() {
        return Err(refuse(format!("a request has no member {name:?}")));
    }
    Ok(Request { name, arguments: Arguments(arguments), id })
}

/// The answer to a request.
pub(super) fn answer(result: Result<Value, CommandError>, id: Option<Value>) -> Value {
    let mut answer = match result {
        Ok(value) => json!({ "return": value }),
        Err(error) => json!({ "error": Refusal { class: error.class, desc: error.description } }),
    };
    if let (Value::Object(members), Some(id)) = (&mut answer, id) {
        members.insert("id".into(), id);
    }
    answer
}

/// What a client is greeted with.
pub(super) fn greeting() -> Greeting {
    Greeting { qmp: Capabilities { version: version(), capabilities: Vec::new() } }
}

/// The version as QMP has it.
pub(super) fn version() -> Version {
    let number = |text: &str| text.parse().unwrap_or(0);
    Version {
        qemu: QemuVersion {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            micro: number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        package: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
