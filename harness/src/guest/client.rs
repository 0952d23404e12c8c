//! The guest, as a scenario sees it.

use std::sync::Arc;
use std::time::Duration;

use cxl_cram_guest::protocol::{Bytes, Call, Condition, Failure, Hello, Program, Ran, Reply, Run, VERSION};
use thiserror::Error;

use super::channel::{Channel, ChannelError};
use super::initramfs::GUEST_PROGRAM;
use super::memory::Memory;
use super::program::Spawned;
use super::trace::Trace;
use crate::machine::health::{Health, Report};

/// The limit of what should be done at once: files, mounts, starting a program.
pub const SHORT: Duration = Duration::from_secs(30);
/// How much longer the harness waits than the guest was told to: its answer should arrive first.
const GRACE: Duration = Duration::from_secs(10);

/// Why the guest did not do something. The message ends with the console's last lines where they can help.
#[derive(Debug, Error)]
pub enum GuestError {
    /// It could not.
    #[error("{what}: {failure}")]
    Failed {
        /// What was asked.
        what: String,
        /// What it said.
        failure: Failure,
    },
    /// A program ended badly.
    #[error("{what}: {}{}\n{}{}", ran.exit, if ran.timed_out { " (at its limit)" } else { "" }, ran.stdout.text(), ran.stderr.text())]
    Program {
        /// The program.
        what: String,
        /// How it ended.
        ran: Box<Ran>,
    },
    /// It took too long.
    #[error("{what} took longer than {limit:?}\n{report}")]
    TimedOut {
        /// What was asked.
        what: String,
        /// The limit.
        limit: Duration,
        /// What the machine has to say.
        report: Box<Report>,
    },
    /// The machine died before it could answer.
    #[error("the machine died before {what} was done\n{report}")]
    Died {
        /// What was asked.
        what: String,
        /// What the machine has to say.
        report: Box<Report>,
    },
    /// The agent is not the one this harness knows.
    #[error("build the guest program again: {what}\n{report}")]
    Agent {
        /// What does not fit.
        what: String,
        /// What the machine has to say.
        report: Box<Report>,
    },
}

/// A guest that answers. Clones talk to the same one.
#[derive(Clone, Debug)]
pub struct Guest {
    channel: Arc<Channel>,
    health: Health,
    patience: u32,
}

impl Guest {
    /// The guest behind a channel. Its kernel is that many times slower than what limits are made for: each is multiplied.
    pub fn new(channel: Channel, health: Health, patience: u32) -> Self {
        Self { channel: Arc::new(channel), health, patience }
    }

    /// How long to wait in this guest for what has this limit.
    pub fn patient(&self, limit: Duration) -> Duration {
        limit.saturating_mul(self.patience)
    }

    /// Waits for the agent's hello.
    ///
    /// # Errors
    /// It does not come, or says something that does not fit.
    pub fn wait_hello(&self, limit: Duration) -> Result<Hello, GuestError> {
        let hello = self.channel.hello(self.patient(limit)).map_err(|error| self.error("the boot", error))?;
        let unfit = |what: String| GuestError::Agent { what, report: Box::new(self.health.report()) };
        if hello.version != VERSION {
            return Err(unfit(format!("it speaks version {}, this harness {VERSION}", hello.version)));
        }
        match hello.modules.iter().find_map(|module| Some((&module.name, module.failure.as_ref()?))) {
            Some((name, failure)) => Err(unfit(format!("module {name} does not fit the kernel: {failure}"))),
            None => Ok(hello),
        }
    }

    /// Runs a program to its end, whatever that is.
    ///
    /// # Errors
    /// It could not be started, or the guest did not answer.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Ran, GuestError> {
        self.run_program(Program::new(argv.iter().copied()), Bytes::default(), limit)
    }

    /// Runs a program with an environment and an input to its end, whatever that is.
    ///
    /// # Errors
    /// It could not be started, or the guest did not answer.
    pub fn run_program(&self, program: Program, stdin: Bytes, limit: Duration) -> Result<Ran, GuestError> {
        let what = program.argv.join(" ");
        let limit = self.patient(limit);
        let run = Run { program, stdin, timeout_ms: millis(limit) };
        match self.ask(&what, Call::Run(run), limit.saturating_add(GRACE))? {
            Reply::Ran(ran) => Ok(ran),
            other => Err(self.unfit(&what, &other)),
        }
    }

    /// Runs a program that must exit with 0, and gives its standard output.
    ///
    /// # Errors
    /// It did not.
    pub fn output(&self, argv: &[&str], limit: Duration) -> Result<String, GuestError> {
        let ran = self.run(argv, limit)?;
        if ran.exit.success() && !ran.timed_out {
            Ok(ran.stdout.text().into_owned())
        } else {
            Err(GuestError::Program { what: argv.join(" "), ran: Box::new(ran) })
        }
    }

    /// Runs one of the guest's own test programs, which must exit with 0 and print JSON.
    ///
    /// # Errors
    /// It did not.
    pub fn test_program(&self, arguments: &[&str], limit: Duration) -> Result<serde_json::Value, GuestError> {
        let argv = [&[GUEST_PROGRAM], arguments].concat();
        let text = self.output(&argv, limit)?;
        let failure = |error: serde_json::Error| Failure::new(format!("it printed no JSON: {error}"));
        serde_json::from_str(&text)
            .map_err(|error| GuestError::Failed { what: argv.join(" "), failure: failure(error) })
    }

    /// Starts a program and keeps it.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, program: Program) -> Result<Spawned, GuestError> {
        let what = program.argv.join(" ");
        match self.call(&what, Call::Spawn(program), SHORT)? {
            Reply::Spawned { child, pid } => Ok(Spawned::new(self.clone(), what, child, pid)),
            other => Err(self.unfit(&what, &other)),
        }
    }

    /// Starts a program that holds memory.
    ///
    /// # Errors
    /// It could not be started.
    pub fn memory(&self) -> Result<Memory, GuestError> {
        self.spawn(Program::new([GUEST_PROGRAM, "memory"])).map(Memory::new)
    }

    /// Starts tracing. Events are `system` or `system:event`.
    ///
    /// # Errors
    /// The kernel does not have them.
    pub fn trace(&self, instance: &str, events: &[&str]) -> Result<Trace, GuestError> {
        Trace::start(self.clone(), instance, events)
    }

    /// A file's content.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>, GuestError> {
        let call = Call::ReadFile { path: path.into(), limit: None };
        match self.call(path, call, SHORT)? {
            Reply::File { data, truncated: false } => Ok(data.0),
            Reply::File { truncated: true, .. } => {
                let failure = Failure::new("it is longer than one answer can be");
                Err(GuestError::Failed { what: path.into(), failure })
            }
            other => Err(self.unfit(path, &other)),
        }
    }

    /// A file's content as text, without the white space around it, as sysfs files are best read.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_text(&self, path: &str) -> Result<String, GuestError> {
        self.read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_file(&self, path: &str, data: impl Into<Bytes>) -> Result<(), GuestError> {
        self.done(path, Call::WriteFile { path: path.into(), data: data.into() }, SHORT)
    }

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn list_dir(&self, path: &str) -> Result<Vec<String>, GuestError> {
        match self.call(path, Call::ListDir { path: path.into() }, SHORT)? {
            Reply::Names { names } => Ok(names),
            other => Err(self.unfit(path, &other)),
        }
    }

    /// Waits until a condition holds, and says how long that took.
    ///
    /// # Errors
    /// It does not within the limit.
    pub fn wait_for(&self, condition: Condition, limit: Duration) -> Result<Duration, GuestError> {
        let what = "wait in the guest".to_owned();
        let limit = self.patient(limit);
        let call = Call::WaitFor { condition, timeout_ms: millis(limit) };
        match self.ask(&what, call, limit.saturating_add(GRACE))? {
            Reply::Waited { elapsed_ms } => Ok(Duration::from_millis(elapsed_ms)),
            other => Err(self.unfit(&what, &other)),
        }
    }

    /// Waits until a path exists.
    ///
    /// # Errors
    /// It does not within the limit.
    pub fn wait_path(&self, path: &str, limit: Duration) -> Result<Duration, GuestError> {
        self.wait_for(Condition::Exists { path: path.into() }, limit)
    }

    /// Mounts a file system.
    ///
    /// # Errors
    /// The kernel does not.
    pub fn mount(&self, source: &str, target: &str, fstype: &str, read_only: bool) -> Result<(), GuestError> {
        let (source, target, fstype) = (source.to_owned(), target.to_owned(), fstype.to_owned());
        let what = format!("mount {source} at {target}");
        self.done(&what, Call::Mount { source, target, fstype, options: String::new(), read_only }, SHORT)
    }

    /// Loads a kernel module from a file in the guest.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn load_module(&self, path: &str, parameters: &str) -> Result<(), GuestError> {
        let call = Call::LoadModule { path: path.into(), parameters: parameters.into() };
        self.done(&format!("load {path}"), call, SHORT)
    }

    /// Unloads a kernel module.
    ///
    /// # Errors
    /// The kernel does not let it go: it is in use.
    pub fn unload_module(&self, name: &str) -> Result<(), GuestError> {
        self.done(&format!("unload {name}"), Call::UnloadModule { name: name.into() }, SHORT)
    }

    /// Writes out all file systems.
    ///
    /// # Errors
    /// The guest did not answer.
    pub fn sync(&self) -> Result<(), GuestError> {
        self.done("sync", Call::Sync, SHORT)
    }

    /// Switches the guest off. Success means that it has begun to.
    ///
    /// # Errors
    /// The guest did not answer.
    pub fn power_off(&self, limit: Duration) -> Result<(), GuestError> {
        self.done("power off", Call::PowerOff, limit)
    }

    /// Restarts the guest and waits until its agent is back. The machine must allow restarts. Programs and traces of
    /// before are gone: drop them first.
    ///
    /// # Errors
    /// It does not come back within the limit.
    pub fn reboot(&self, limit: Duration) -> Result<Hello, GuestError> {
        self.done("restart", Call::Reboot, SHORT)?;
        self.wait_hello(limit)
    }

    /// Makes a call.
    ///
    /// # Errors
    /// The guest could not do it, or did not answer.
    pub fn call(&self, what: &str, call: Call, limit: Duration) -> Result<Reply, GuestError> {
        self.ask(what, call, self.patient(limit))
    }

    /// Makes a call with a limit that has patience in it.
    fn ask(&self, what: &str, call: Call, limit: Duration) -> Result<Reply, GuestError> {
        self.channel.call(call, limit).map_err(|error| self.error(what, error))
    }

    pub(super) fn done(&self, what: &str, call: Call, limit: Duration) -> Result<(), GuestError> {
        match self.call(what, call, limit)? {
            Reply::Nothing => Ok(()),
            other => Err(self.unfit(what, &other)),
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn error(&self, what: &str, error: ChannelError) -> GuestError {
        let what = what.to_owned();
        let report = || Box::new(self.health.report());
        match error {
            ChannelError::Refused(failure) => GuestError::Failed { what, failure },
            ChannelError::TimedOut(limit) => GuestError::TimedOut { what, limit, report: report() },
            ChannelError::Closed | ChannelError::Broken(_) => {
                GuestError::Died { what, report: Box::new(self.health.post_mortem()) }
            }
        }
    }

    fn unfit(&self, what: &str, reply: &Reply) -> GuestError {
        let what = format!("it answered {what} with {reply:?}");
        GuestError::Agent { what, report: Box::new(self.health.report()) }
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}
