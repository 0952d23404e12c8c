//! Requests, answers and the greeting, as JSON.

use serde_json::{Map, Value, json};

use crate::size;

/// The kinds of error QMP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Anything that is not about the command's name.
    GenericError,
    /// There is no such command, or not now.
    CommandNotFound,
}

/// Why a command failed, as the client is told.
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

/// The arguments of a command, taken one by one. Those nobody took are an error, so that a misspelt one is noticed.
#[derive(Clone, Debug, Default)]
pub struct Arguments(Map<String, Value>);

impl Arguments {
    /// These arguments.
    pub fn new(arguments: Map<String, Value>) -> Self {
        Self(arguments)
    }

    /// An argument that may be missing, as it came.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A whole number, or a size such as `"96M"`.
    pub fn bytes(&mut self, name: &str) -> Result<u64, CommandError> {
        self.optional_bytes(name)?.ok_or_else(|| missing(name))
    }

    /// As [`Self::bytes`], for an argument that may be missing.
    pub fn optional_bytes(&mut self, name: &str) -> Result<Option<u64>, CommandError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let bytes = match &value {
            Value::String(text) => size::parse_bytes(text).map_err(|why| wrong(name, &why))?,
            number => number.as_u64().ok_or_else(|| wrong(name, "give bytes, or a size such as \"96M\""))?,
        };
        Ok(Some(bytes))
    }

    /// A threshold: bytes, a size such as `"96M"`, or a percentage such as `"20%"`.
    pub fn threshold(&mut self, name: &str) -> Result<crate::hdm::media::Threshold, CommandError> {
        match self.take(name).ok_or_else(|| missing(name))? {
            Value::String(text) => text.parse().map_err(|why: String| wrong(name, &why)),
            number => number
                .as_u64()
                .map(crate::hdm::media::Threshold::Bytes)
                .ok_or_else(|| wrong(name, "give bytes, a size such as \"96M\", or a percentage such as \"20%\"")),
        }
    }

    /// `true` or `false`, or nothing.
    pub fn optional_bool(&mut self, name: &str) -> Result<Option<bool>, CommandError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(name, "give true or false"))
    }

    /// Those of these names, taken out.
    pub fn split(&mut self, names: &[&str]) -> Self {
        Self(names.iter().filter_map(|&name| Some((name.to_owned(), self.0.remove(name)?))).collect())
    }

    /// All that is left, as a structure that says what there may be.
    pub fn into<T: serde::de::DeserializeOwned>(self) -> Result<T, CommandError> {
        serde_json::from_value(Value::Object(self.0))
            .map_err(|why| CommandError::generic(format!("the arguments are not valid: {why}")))
    }

    /// Refuses what is left.
    pub fn finish(&self) -> Result<(), CommandError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(CommandError::generic(format!("this command has no argument {name:?}"))),
        }
    }
}

fn missing(name: &str) -> CommandError {
    CommandError::generic(format!("the argument {name:?} is missing"))
}

fn wrong(name: &str, why: &str) -> CommandError {
    CommandError::generic(format!("the argument {name:?} is not valid: {why}"))
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
        Err(error) => {
            json!({ "error": { "class": format!("{:?}", error.class), "desc": error.description } })
        }
    };
    if let (Value::Object(members), Some(id)) = (&mut answer, id) {
        members.insert("id".into(), id);
    }
    answer
}

/// What a client is met with.
pub(super) fn greeting() -> Value {
    json!({ "QMP": { "version": version(), "capabilities": [] } })
}

/// The version as QMP has it. The member is called `qemu` because qmp-shell looks for it.
pub(super) fn version() -> Value {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    json!({
        "qemu": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "micro": number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        "package": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
    })
}
