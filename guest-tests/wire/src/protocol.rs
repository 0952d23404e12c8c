//! The agent's protocol: JSON, one message on each line, over a virtio-serial port.
//!
//! The harness sends [`Request`] lines and the agent sends [`Message`] lines. Requests are answered by id and in any
//! order, so a long one holds up no other. A line that is not a request is answered with an error and no id.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Raised whenever a message changes its meaning. The harness refuses an agent of another version.
pub const VERSION: u32 = 1;

/// The name of the virtio-serial port, as given to QEMU's `virtserialport,name=`.
pub const PORT_NAME: &str = "org.cxl-cram.agent";

/// Start of the console line with which the guest's init reports that the agent died.
pub const DIED: &str = "cxl-cram: the agent died";

/// Directory of the initramfs whose modules the agent loads at boot, in the order of their file names.
pub const MODULES_DIR: &str = "/modules";

/// Directory of the initramfs whose modules are loaded on demand, by file name: `cxl_cram.ko`.
pub const ON_DEMAND_DIR: &str = "/modules-on-demand";

/// The longest line either side accepts, in bytes. Longer lines are dropped and answered with an error.
pub const MAX_LINE: usize = 16 << 20;

/// The most bytes of a stream or a file in one answer. The rest is dropped, and the answer says so.
pub const MAX_BYTES: usize = 4 << 20;

/// One call from the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the harness, and repeated in the answer.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub call: Call,
}

/// The calls of the harness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Asks the agent to identify itself. Answered with [`Reply::Hello`].
    Hello,
    /// Runs a program to its end. Answered with [`Reply::Ran`].
    Run(Run),
    /// Starts a program and keeps it. Answered with [`Reply::Spawned`]; output and exit come as [`Event`]s.
    Spawn(Program),
    /// Writes to the standard input of a spawned program.
    Stdin {
        /// As [`Reply::Spawned`] gave it.
        child: u64,
        /// The bytes to write.
        data: Bytes,
    },
    /// Closes the standard input of a spawned program.
    CloseStdin {
        /// As [`Reply::Spawned`] gave it.
        child: u64,
    },
    /// Sends a signal to the process group of a spawned program.
    Kill {
        /// As [`Reply::Spawned`] gave it.
        child: u64,
        /// The signal's number.
        signal: i32,
    },
    /// Reads a file, at most `limit` bytes of it. Answered with [`Reply::File`].
    ReadFile {
        /// Absolute path.
        path: String,
        /// Bytes; [`MAX_BYTES`] when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// Writes a file in one `write`, as sysfs requires. Creates the file if it does not exist.
    WriteFile {
        /// Absolute path.
        path: String,
        /// The bytes to write.
        data: Bytes,
    },
    /// Lists the names in a directory, sorted. Answered with [`Reply::Names`].
    ListDir {
        /// Absolute path.
        path: String,
    },
    /// Waits for a path or for a file's content. Answered with [`Reply::Waited`].
    WaitFor {
        /// What to wait for.
        condition: Condition,
        /// The limit, in milliseconds.
        timeout_ms: u64,
    },
    /// Creates an ftrace instance, enables events in it and streams its lines as [`Event::Trace`].
    TraceStart {
        /// The instance's name.
        instance: String,
        /// Each is `system` or `system:event`.
        events: Vec<String>,
    },
    /// Stops tracing. All lines traced before are sent before the answer.
    TraceStop {
        /// The instance's name.
        instance: String,
    },
    /// Mounts a file system. Creates the target if it does not exist.
    Mount {
        /// Device or, for a file system without one, any word.
        source: String,
        /// Absolute path.
        target: String,
        /// The file system's type.
        fstype: String,
        /// The file system's own options.
        #[serde(default)]
        options: String,
        /// Whether to mount read-only.
        #[serde(default)]
        read_only: bool,
    },
    /// Loads a kernel module from a file.
    LoadModule {
        /// Absolute path.
        path: String,
        /// The module's parameters.
        #[serde(default)]
        parameters: String,
    },
    /// Unloads a kernel module; fails if it is in use.
    UnloadModule {
        /// Its name in `/proc/modules`.
        name: String,
    },
    /// Writes out all file systems.
    Sync,
    /// Restarts the guest. The answer comes first.
    Reboot,
    /// Starts another kernel in place of this one, without firmware in between. The answer comes first.
    Kexec {
        /// Absolute path of a bzImage.
        kernel: String,
        /// Absolute path of its initramfs.
        initrd: String,
        /// Its command line.
        append: String,
    },
    /// Powers the guest off. The answer comes first.
    PowerOff,
}

/// A program to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments. A program without a slash is looked up in the agent's `PATH`.
    pub argv: Vec<String>,
    /// Added to the agent's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// Working directory; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl Program {
    /// A program with nothing but its arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// A program to run to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What to start.
    #[serde(flatten)]
    pub program: Program,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub stdin: Bytes,
    /// The limit, in milliseconds, at which the program's process group is killed.
    pub timeout_ms: u64,
}

/// What [`Call::WaitFor`] waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "until", rename_all = "snake_case")]
pub enum Condition {
    /// The path exists.
    Exists {
        /// Absolute path.
        path: String,
    },
    /// The path does not exist.
    Gone {
        /// Absolute path.
        path: String,
    },
    /// The file's content, without white space around it, is this.
    Is {
        /// Absolute path.
        path: String,
        /// The content.
        text: String,
    },
    /// The file contains this.
    Contains {
        /// Absolute path.
        path: String,
        /// The part.
        text: String,
    },
}

/// One line from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// Sent once when the agent starts.
    Hello(Hello),
    /// The answer to a request.
    Answer {
        /// The request's id; absent if the line has none.
        id: Option<u64>,
        /// The result.
        outcome: Outcome,
    },
    /// An event that is no answer.
    Event(Event),
}

/// The agent's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// As `uname -r` prints it.
    pub kernel: String,
    /// The kernel modules loaded at start, with the results.
    pub modules: Vec<Module>,
}

/// A module that the agent loaded at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// File name.
    pub name: String,
    /// The error, if it did not load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Success.
    Done(Reply),
    /// Failure.
    Failed(Failure),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence.
    pub message: String,
    /// The error number, if a system call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl Failure {
    /// A failure other than a system call's.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), errno: None }
    }

    /// A failed system call, and its purpose.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self { message: format!("{what}: {error}"), errno: error.raw_os_error() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing but success.
    Nothing,
    /// The agent's identity.
    Hello(Hello),
    /// A program ended, or was killed at its limit.
    Ran(Ran),
    /// A program was started.
    Spawned {
        /// Identifies it in later calls and events. Never reused.
        child: u64,
        /// Its process id.
        pid: u32,
    },
    /// A file's content.
    File {
        /// The content read.
        data: Bytes,
        /// Whether the file goes on.
        truncated: bool,
    },
    /// Names in a directory.
    Names {
        /// Sorted, without `.` and `..`.
        names: Vec<String>,
    },
    /// The condition holds.
    Waited {
        /// How long it took.
        elapsed_ms: u64,
    },
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// Exit code or signal.
    pub exit: Exit,
    /// The program was killed at its limit.
    pub timed_out: bool,
    /// The first [`MAX_BYTES`] of its standard output.
    pub stdout: Bytes,
    /// The first [`MAX_BYTES`] of its standard error.
    pub stderr: Bytes,
    /// Some output was dropped: there was too much, or a grandchild kept the pipe open.
    pub truncated: bool,
    /// How long it ran.
    pub elapsed_ms: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Whether the exit code is 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// An event that is no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A spawned program wrote a line.
    Output {
        /// As [`Reply::Spawned`] gave it.
        child: u64,
        /// Where it wrote.
        stream: Stream,
        /// Without the line's end.
        line: String,
    },
    /// A spawned program ended; all its output was sent before.
    Exited {
        /// As [`Reply::Spawned`] gave it.
        child: u64,
        /// Exit code or signal.
        exit: Exit,
    },
    /// A line of an ftrace instance's `trace_pipe`.
    Trace {
        /// The instance's name.
        instance: String,
        /// Without the line's end.
        line: String,
    },
}

/// An output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes: a JSON string if they are UTF-8, as they nearly always are, and hexadecimal otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Encoded", into = "Encoded")]
pub struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Encoded {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As text; bytes that are not UTF-8 become the replacement character.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<Bytes> for Encoded {
    fn from(bytes: Bytes) -> Self {
        match String::from_utf8(bytes.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Hex { hex: to_hex(error.as_bytes()) },
        }
    }
}

impl TryFrom<Encoded> for Bytes {
    type Error = Failure;

    fn try_from(encoded: Encoded) -> Result<Self, Failure> {
        match encoded {
            Encoded::Text(text) => Ok(Self(text.into_bytes())),
            Encoded::Hex { hex } => from_hex(&hex).map(Self),
        }
    }
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        hex.push_str(&format!("{byte:02x}"));
        hex
    })
}

/// The bytes that `hex` spells; white space between them is ignored.
///
/// # Errors
/// The number of digits is odd, or a character is not a hexadecimal digit.
pub fn from_hex(hex: &str) -> Result<Vec<u8>, Failure> {
    let digits = hex
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| Failure::new("give hexadecimal digits only"))?;
    if digits.len() % 2 != 0 {
        return Err(Failure::new("give an even number of hexadecimal digits"));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_flat_object() {
        let run = Run { program: Program::new(["cxl", "list"]), stdin: Bytes::default(), timeout_ms: 5 };
        let line = serde_json::to_string(&Request { id: 7, call: Call::Run(run.clone()) }).unwrap();
        assert_eq!(line, r#"{"id":7,"call":"run","argv":["cxl","list"],"timeout_ms":5}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), Request { id: 7, call: Call::Run(run) });
        let wait = r#"{"id":1,"call":"wait_for","condition":{"until":"exists","path":"/x"},"timeout_ms":1}"#;
        let Request { call: Call::WaitFor { condition, .. }, .. } = serde_json::from_str(wait).unwrap() else {
            panic!("{wait}")
        };
        assert_eq!(condition, Condition::Exists { path: "/x".into() });
        assert!(serde_json::from_str::<Request>(r#"{"id":1,"call":"dance"}"#).is_err());
    }

    #[test]
    fn bytes_that_are_not_text_survive() {
        for bytes in [&b"plain"[..], b"", &[0xff, 0x00, 0x80]] {
            let line = serde_json::to_string(&Bytes(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&line).unwrap().0, bytes, "{line}");
        }
        assert_eq!(serde_json::to_string(&Bytes(vec![0xff, 1])).unwrap(), r#"{"hex":"ff01"}"#);
        assert!(serde_json::from_str::<Bytes>(r#"{"hex":"f"}"#).is_err());
        assert!(serde_json::from_str::<Bytes>(r#"{"hex":"zz"}"#).is_err());
    }

    #[test]
    fn an_answer_carries_its_outcome() {
        let failed =
            Message::Answer { id: None, outcome: Outcome::Failed(Failure { message: "no".into(), errno: Some(2) }) };
        let line = serde_json::to_string(&failed).unwrap();
        assert_eq!(line, r#"{"kind":"answer","id":null,"outcome":{"failed":{"message":"no","errno":2}}}"#);
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), failed);
        let done = Message::Answer { id: Some(3), outcome: Outcome::Done(Reply::Spawned { child: 1, pid: 2 }) };
        let line = serde_json::to_string(&done).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), done, "{line}");
    }
}
