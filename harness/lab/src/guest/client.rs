//! The guest's operations for scenarios, each with a limit and errors that show the console.

use std::sync::Arc;
use std::time::Duration;

use cxl_cram_wire::protocol::{Bytes, Call, Condition, Failure, Hello, Program, Ran, Reply, Run, VERSION};
use thiserror::Error;

use super::channel::{Channel, ChannelError};
use super::initramfs::GUEST_PROGRAM;
use super::memory::Memory;
use super::program::Spawned;
use super::trace::Trace;
use crate::health::{Health, Report};

/// The limit for quick operations: files, mounts, starting a program.
pub const SHORT: Duration = Duration::from_secs(30);
/// How much longer the harness waits than the guest does, so that the guest's answer arrives first.
const GRACE: Duration = Duration::from_secs(10);

/// The patience for a guest under a debugger, which may stop it at any time: no limit ends a wait.
pub const ENDLESS: u32 = u32::MAX;

/// A failed operation of the guest. The message ends with the console's last lines if they can help.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The operation failed in the guest.
    #[error("{what}: {failure}")]
    Failed {
        /// The operation.
        what: String,
        /// The guest's error.
        failure: Failure,
    },
    /// A program failed.
    #[error("{what}: {}{}\n{}{}", ran.exit, if ran.timed_out { " (at its limit)" } else { "" }, ran.stdout.text(), ran.stderr.text())]
    Program {
        /// The command line.
        what: String,
        /// Its exit and output.
        ran: Box<Ran>,
    },
    /// No answer within the limit.
    #[error("{what} took longer than {} s\n{report}", limit.as_secs_f64().round())]
    TimedOut {
        /// The operation.
        what: String,
        /// The limit.
        limit: Duration,
        /// The machine's state.
        report: Box<Report>,
    },
    /// The machine died before it answered.
    #[error("the machine died before {what} was done\n{report}")]
    Died {
        /// The operation.
        what: String,
        /// The machine's state.
        report: Box<Report>,
        /// The failed write to the agent's port, if that is how it was found out.
        source: Option<std::io::Error>,
    },
    /// The agent does not match this harness.
    #[error("the guest's agent {what}; rebuild the guest program\n{report}")]
    Agent {
        /// The mismatch.
        what: String,
        /// The machine's state.
        report: Box<Report>,
    },
    /// A module did not load at boot.
    #[error("cannot load module {name}, which may not fit the kernel: {failure}\n{report}")]
    Module {
        /// The module.
        name: String,
        /// The guest's error.
        failure: Failure,
        /// The machine's state.
        report: Box<Report>,
    },
}

/// A guest that answers. Clones share the channel.
#[derive(Clone, Debug)]
pub struct Guest {
    channel: Arc<Channel>,
    health: Health,
    patience: u32,
}

impl Guest {
    /// The guest behind a channel. All limits are multiplied by `patience`, for slow kernels.
    pub fn new(channel: Channel, health: Health, patience: u32) -> Self {
        Self { channel: Arc::new(channel), health, patience }
    }

    /// A limit, extended by this guest's patience.
    pub fn patient(&self, limit: Duration) -> Duration {
        limit.saturating_mul(self.patience)
    }

    /// Waits for the agent's hello.
    ///
    /// # Errors
    /// No hello within the limit, another protocol version, or a module that did not load.
    pub fn wait_hello(&self, limit: Duration) -> Result<Hello, GuestError> {
        let hello = self.channel.hello(self.patient(limit)).map_err(|error| self.error("the boot", error))?;
        let report = || Box::new(self.health.report());
        if hello.version != VERSION {
            let what = format!("speaks protocol {}, expected {VERSION}", hello.version);
            return Err(GuestError::Agent { what, report: report() });
        }
        match hello.modules.iter().find_map(|module| Some((&module.name, module.failure.as_ref()?))) {
            Some((name, failure)) => {
                Err(GuestError::Module { name: name.clone(), failure: failure.clone(), report: report() })
            }
            None => Ok(hello),
        }
    }

    /// Runs a program to its end. A failed exit is not an error.
    ///
    /// # Errors
    /// The program cannot be started, or the guest does not answer.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Ran, GuestError> {
        self.run_program(Program::new(argv.iter().copied()), Bytes::default(), limit)
    }

    /// Like [`Self::run`], with an environment and an input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_program(&self, program: Program, stdin: Bytes, limit: Duration) -> Result<Ran, GuestError> {
        let what = program.argv.join(" ");
        let limit = self.patient(limit);
        let run = Run { program, stdin, timeout_ms: millis(limit) };
        match self.ask(&what, Call::Run(run), limit.saturating_add(GRACE))? {
            Reply::Ran(ran) => Ok(ran),
            other => Err(self.unfit(&what, &other)),
        }
    }

    /// Runs a program that must exit with 0. Returns its standard output.
    ///
    /// # Errors
    /// As [`Self::run`], or the program exits with another code or exceeds the limit.
    pub fn output(&self, argv: &[&str], limit: Duration) -> Result<String, GuestError> {
        let ran = self.run(argv, limit)?;
        if ran.exit.success() && !ran.timed_out {
            Ok(ran.stdout.text().into_owned())
        } else {
            Err(GuestError::Program { what: argv.join(" "), ran: Box::new(ran) })
        }
    }

    /// Starts a program in the background.
    ///
    /// # Errors
    /// The program cannot be started, or the guest does not answer.
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
    /// The program cannot be started, or the guest does not answer.
    pub fn memory(&self) -> Result<Memory, GuestError> {
        self.spawn(Program::new([GUEST_PROGRAM, "memory"])).map(Memory::new)
    }

    /// Starts tracing. Events are `system` or `system:event`.
    ///
    /// # Errors
    /// The kernel has no such events.
    pub fn trace(&self, instance: &str, events: &[&str]) -> Result<Trace, GuestError> {
        Trace::start(self.clone(), instance, events)
    }

    /// A file's content.
    ///
    /// # Errors
    /// The file cannot be read, or is longer than one answer can be.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>, GuestError> {
        let call = Call::ReadFile { path: path.into(), limit: None };
        match self.call(path, call, SHORT)? {
            Reply::File { data, truncated: false } => Ok(data.0),
            Reply::File { truncated: true, .. } => {
                let failure = Failure::new("the file is longer than one answer can be");
                Err(GuestError::Failed { what: path.into(), failure })
            }
            other => Err(self.unfit(path, &other)),
        }
    }

    /// A file's content as text, without surrounding white space. Suits sysfs.
    ///
    /// # Errors
    /// As [`Self::read_file`].
    pub fn read_text(&self, path: &str) -> Result<String, GuestError> {
        self.read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_file(&self, path: &str, data: impl Into<Bytes>) -> Result<(), GuestError> {
        self.done(path, Call::WriteFile { path: path.into(), data: data.into() }, SHORT)
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list_dir(&self, path: &str) -> Result<Vec<String>, GuestError> {
        match self.call(path, Call::ListDir { path: path.into() }, SHORT)? {
            Reply::Names { names } => Ok(names),
            other => Err(self.unfit(path, &other)),
        }
    }

    /// Waits until a condition holds. Returns how long that took.
    ///
    /// # Errors
    /// The condition does not hold within the limit.
    pub fn wait_for(&self, condition: Condition, limit: Duration) -> Result<Duration, GuestError> {
        let what = "wait in the guest".to_owned();
        let limit = self.patient(limit);
        let call = Call::WaitFor { condition, timeout_ms: millis(limit) };
        match self.ask(&what, call, limit.saturating_add(GRACE))? {
            Reply::Waited { elapsed_ms } => Ok(Duration::from_millis(elapsed_ms)),
            other => Err(self.unfit(&what, &other)),
        }
    }

    /// Waits until a path exists. Returns how long that took.
    ///
    /// # Errors
    /// The path does not exist within the limit.
    pub fn wait_path(&self, path: &str, limit: Duration) -> Result<Duration, GuestError> {
        self.wait_for(Condition::Exists { path: path.into() }, limit)
    }

    /// Mounts a file system.
    ///
    /// # Errors
    /// The kernel refuses the mount.
    pub fn mount(&self, source: &str, target: &str, fstype: &str, read_only: bool) -> Result<(), GuestError> {
        let (source, target, fstype) = (source.to_owned(), target.to_owned(), fstype.to_owned());
        let what = format!("mount {source} at {target}");
        self.done(&what, Call::Mount { source, target, fstype, options: String::new(), read_only }, SHORT)
    }

    /// Loads a kernel module from a file in the guest.
    ///
    /// # Errors
    /// The kernel refuses the module.
    pub fn load_module(&self, path: &str, parameters: &str) -> Result<(), GuestError> {
        let call = Call::LoadModule { path: path.into(), parameters: parameters.into() };
        self.done(&format!("load {path}"), call, SHORT)
    }

    /// Unloads a kernel module.
    ///
    /// # Errors
    /// The module is in use.
    pub fn unload_module(&self, name: &str) -> Result<(), GuestError> {
        self.done(&format!("unload {name}"), Call::UnloadModule { name: name.into() }, SHORT)
    }

    /// Syncs all file systems.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn sync(&self) -> Result<(), GuestError> {
        self.done("sync", Call::Sync, SHORT)
    }

    /// Powers the guest off. Returns when the shutdown has begun.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn power_off(&self, limit: Duration) -> Result<(), GuestError> {
        self.done("power off", Call::PowerOff, limit)
    }

    /// Restarts the guest and waits for its agent. The machine must allow restarts. Drop programs and traces first: they
    /// do not survive.
    ///
    /// # Errors
    /// As [`Self::wait_hello`].
    pub fn reboot(&self, limit: Duration) -> Result<Hello, GuestError> {
        self.done("restart", Call::Reboot, SHORT)?;
        self.wait_hello(limit)
    }

    /// Starts another kernel in place of the guest's and waits until its agent is back.
    ///
    /// # Errors
    /// The guest's kernel refuses it, or the agent does not come back within `limit`.
    pub fn kexec(&self, kernel: &str, initrd: &str, append: &str, limit: Duration) -> Result<Hello, GuestError> {
        let call = Call::Kexec { kernel: kernel.into(), initrd: initrd.into(), append: append.into() };
        self.done("start another kernel", call, limit)?;
        self.wait_hello(limit)
    }

    /// Makes a call. `what` names it in errors.
    ///
    /// # Errors
    /// The call fails in the guest, or the guest does not answer.
    pub fn call(&self, what: &str, call: Call, limit: Duration) -> Result<Reply, GuestError> {
        self.ask(what, call, self.patient(limit))
    }

    /// Makes a call with a limit that already includes the patience.
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
            ChannelError::Closed => self.died(what, None),
            ChannelError::Broken(source) => self.died(what, Some(source)),
        }
    }

    fn died(&self, what: String, source: Option<std::io::Error>) -> GuestError {
        GuestError::Died { what, report: Box::new(self.health.post_mortem()), source }
    }

    fn unfit(&self, what: &str, reply: &Reply) -> GuestError {
        let what = format!("answered {what} with {reply:?}");
        GuestError::Agent { what, report: Box::new(self.health.report()) }
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, thread};

    use cxl_cram_wire::protocol::Message;

    use super::*;

    #[test]
    fn no_limit_ends_a_wait_for_a_guest_under_a_debugger() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let health = Health::default();
        let guest = Guest::new(Channel::new(ours, health.machine_gone()).unwrap(), health, ENDLESS);
        let hello = Message::Hello(Hello { version: VERSION, kernel: "test".into(), modules: Vec::new() });
        let hello = serde_json::to_string(&hello).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                writeln!(theirs, "{hello}").unwrap();
            });
            assert_eq!(guest.wait_hello(Duration::from_millis(1)).unwrap().kernel, "test");
        });
    }
}
