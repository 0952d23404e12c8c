//! The process of a device, and its control socket.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cxl_cram_device::control::api::{
    Command as ControlCommand, Event, PoisonRun, QueryPoison, QueryStatus, SetWatermarks, Status,
};
use cxl_cram_device::hdm::media::Threshold;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use serde::Serialize;
use signal_hook::low_level::signal_name;

use super::control::Control;
use super::device_events::Listener;
use super::shape::DeviceShape;
use crate::process::interrupt::interrupted;
use crate::process::{child, script, tied};

/// The first argument that turns a harness program, or its test, into the device: see [`entry`].
const AS_DEVICE: &str = "as-device";

/// How long the device may take to answer, and to stop.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the device may take to be ready: a large one on a busy host has maps to make.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// The period of checks for an interruption, and the wait for the exit of a device whose sockets have closed.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of the log that the error of a failed start quotes: enough for a whole refusal of its options.
const QUOTED_LINES: usize = 20;

/// Runs the device if this program was started as one, and returns its exit code. Every `main` that runs scenarios
/// calls it first. One file on disk is harness and device, so their versions never differ.
pub fn entry() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    if args.next()? != AS_DEVICE {
        return None;
    }
    Some(cxl_cram_device::cli::main(std::iter::once(program).chain(args)))
}

/// The file of this program, or its newer build in the same place.
fn program() -> io::Result<PathBuf> {
    const REPLACED: &str = " (deleted)";
    let program = std::env::current_exe()?;
    let replaced = program.to_str().and_then(|name| name.strip_suffix(REPLACED)).map(PathBuf::from);
    Ok(replaced.unwrap_or(program))
}

/// A running device. Dropping it ends it and waits for it.
#[derive(Debug)]
pub struct Device {
    child: Child,
    socket: PathBuf,
    control: PathBuf,
    killed: bool,
}

impl Device {
    /// Starts device number `index` with its sockets in `run`, and waits until it is ready. `artifacts` receives its log and a
    /// script that starts it again.
    pub fn start(index: usize, shape: &DeviceShape, more: &[String], run: &Path, artifacts: &Path) -> Result<Self> {
        let (socket, control) = (run.join(format!("device{index}.sock")), run.join(format!("control{index}.sock")));
        let start = |program: &Path| {
            let mut command = Command::new(program);
            command.arg(AS_DEVICE).args(shape.arguments(more));
            command.arg("--socket").arg(&socket).arg("--control").arg(&control);
            command
        };
        let path = artifacts.join(format!("device{index}.sh"));
        let folder = format!("mkdir -p {}\n", script::quote(run));
        let program = program().context("cannot name this program")?;
        script::write(&path, &format!("Device {index}, as the harness started it."), &folder, &start(&program))
            .with_context(|| format!("cannot write {}", path.display()))?;
        // This path names the running program even if a newer build has replaced its file.
        let mut command = start(Path::new("/proc/self/exe"));
        command.arg0("cxl-cram-harness");
        Self::serve(command, socket, control, &artifacts.join(format!("device{index}.log")), READY_LIMIT)
    }

    /// Starts a device by this command and waits until it is ready.
    fn serve(mut command: Command, socket: PathBuf, control: PathBuf, log: &Path, limit: Duration) -> Result<Self> {
        let log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).env_remove("CXL_CRAM_LOG");
        // Not SIGKILL: the device must unmount its window.
        let mut child = tied::spawn(command, Signal::TERM).context("cannot start the device")?;
        let stdout = child.stdout.take().context("the device has no output")?;
        let device = Self { child, socket, control, killed: false };
        match ready(stdout, limit).context("cannot read the output of the device")? {
            Start::Ready => Ok(device),
            Start::Ended => bail!("the device did not start: {}", end_of(log)),
            Start::Late => bail!("the device was not ready within {} s: {}", limit.as_secs(), end_of(log)),
            Start::Interrupted => bail!("interrupted"),
        }
    }

    /// How the device ended, unless it runs or the scenario killed it. Its sockets close a moment before it has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = if self.killed { None } else { child::wait(&mut self.child, LOOK).ok().flatten() }?;
        let by = |signal| format!("killed by {}", signal_name(signal).unwrap_or("a signal"));
        Some(status.signal().map_or_else(|| status.to_string(), by))
    }

    /// The socket for QEMU.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The control socket.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The device's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Executes one command on the control socket and returns its answer.
    pub fn execute<C: ControlCommand + Serialize>(&self, command: C) -> Result<C::Ok> {
        let end = Instant::now() + LIMIT;
        let late = || Instant::now() >= end;
        Control::connect(&self.control, &late)?.execute(&command, &late)
    }

    /// The device's poison list.
    pub fn poison_list(&self) -> Result<Vec<PoisonRun>> {
        let (mut all, mut start) = (Vec::new(), Some(0));
        while let Some(from) = start {
            let list = self.execute(QueryPoison { start: from, length: None })?;
            all.extend(list.records);
            start = list.more;
        }
        Ok(all)
    }

    /// Bytes of everything on the device's poison list.
    pub fn poison_listed(&self) -> Result<u64> {
        Ok(self.poison_list()?.iter().map(|run| run.length).sum())
    }

    /// Calls `hear` for the device's events from now on, on a thread of its own.
    pub(crate) fn listen<T: Default + Send + 'static>(
        &self,
        hear: impl FnMut(&mut T, Event) -> Result<()> + Send + 'static,
    ) -> Result<Listener<T>> {
        Listener::start(&self.control, hear)
    }

    /// Collects the device's events from now on.
    pub fn collect_events(&self) -> Result<Listener<Vec<Event>>> {
        self.listen(|events: &mut Vec<_>, event| {
            events.push(event);
            Ok(())
        })
    }

    /// Occupancy and its context, exact: the device flushes first.
    pub fn status(&self) -> Result<Status> {
        self.execute(QueryStatus::default())
    }

    /// Sets the watermarks, in per cent of the media that exists.
    pub fn set_watermarks(&self, low: f64, high: f64) -> Result<()> {
        self.execute(SetWatermarks { low: Threshold::Percent(low), high: Threshold::Percent(high) }).map(drop)
    }

    /// Resident memory of the device's process, bytes.
    pub fn process_resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Kills the device without warning, and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.killed = true;
        child::wait(&mut self.child, LIMIT)?.context("the device does not end after SIGKILL")?;
        Ok(())
    }

    /// Stops the device's process for this long, and lets it go on.
    pub fn freeze(&self, time: Duration) -> Result<()> {
        let process = Pid::from_child(&self.child);
        // However this ends: a stopped process does not end by SIGTERM.
        let _goes_on = GoesOn(process);
        kill_process(process, Signal::STOP).context("cannot stop the device")?;
        let end = Instant::now() + time;
        while Instant::now() < end {
            ensure!(!interrupted(), "interrupted");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the scenario killed it.
    pub(crate) fn killed(&self) -> bool {
        self.killed
    }

    /// Asks the device to stop and waits; an exit code other than 0 is an error.
    pub fn stop(&mut self) -> Result<()> {
        child::terminate(&mut self.child);
        let status = child::wait(&mut self.child, LIMIT)?
            .with_context(|| format!("the device did not stop within {LIMIT:?}"))?;
        ensure!(status.success(), "the device ended with {status}");
        Ok(())
    }
}

/// Lets a stopped process go on when dropped.
struct GoesOn(Pid);

impl Drop for GoesOn {
    fn drop(&mut self) {
        let _: rustix::io::Result<()> = kill_process(self.0, Signal::CONT);
    }
}

/// The outcome of a start.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Ready,
    /// The device ended; its log has the reason.
    Ended,
    Late,
    Interrupted,
}

/// Waits for the line that a device prints when it is ready.
fn ready(mut stdout: ChildStdout, limit: Duration) -> io::Result<Start> {
    let end = Instant::now() + limit;
    let mut output = [0; 512];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if interrupted() {
            return Ok(Start::Interrupted);
        }
        if left.is_zero() {
            return Ok(Start::Late);
        }
        let look = Timespec::try_from(left.min(LOOK)).ok();
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], look.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut output)? {
            0 => return Ok(Start::Ended),
            count if output[..count].contains(&b'\n') => return Ok(Start::Ready),
            _ => {}
        }
    }
}

/// The last lines of a device's log.
fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.trim().lines().collect();
    match &lines[lines.len().saturating_sub(QUOTED_LINES)..] {
        [] => "its log is empty".to_owned(),
        last => last.join("\n"),
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        child::stop(&mut self.child, LIMIT);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(200);
    const LATER: Duration = Duration::from_secs(60);

    /// Starts a shell script instead of a device.
    fn start(script: &str, limit: Duration) -> Result<Device> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Device::serve(command, "socket".into(), "control".into(), &folder.path().join("log"), limit)
    }

    #[test]
    fn a_device_that_does_not_become_ready_is_given_up() {
        let error = start("echo opening >&2; exec sleep 600", SOON).unwrap_err().to_string();
        assert_eq!(error, "the device was not ready within 0 s: opening");
    }

    #[test]
    fn a_device_that_does_not_start_is_quoted_in_full() {
        let error = start("echo 'error: one' >&2; echo 'try another' >&2; exit 2", LATER).unwrap_err().to_string();
        assert_eq!(error, "the device did not start: error: one\ntry another");
        let silent = start("exit 0", LATER).unwrap_err().to_string();
        assert_eq!(silent, "the device did not start: its log is empty");
    }

    #[test]
    fn a_device_whose_ready_line_comes_in_parts_is_ready() {
        start("printf re; sleep 0.1; echo ady; exec sleep 600", LATER).unwrap();
    }

    #[test]
    fn a_device_that_is_gone_says_what_ended_it() {
        let mut device = start("echo ready; exec sleep 600", LATER).unwrap();
        assert_eq!(device.ended(), None);
        device.child.kill().unwrap();
        child::wait(&mut device.child, LATER).unwrap();
        assert_eq!(device.ended().as_deref(), Some("killed by SIGKILL"));
        let mut device = start("echo ready; exec sleep 600", LATER).unwrap();
        device.kill().unwrap();
        assert_eq!(device.ended(), None, "the scenario killed it");
    }

    #[test]
    fn the_options_of_a_device_are_read_as_the_device_reads_them() {
        let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(DeviceShape::USUAL.options(&[]).unwrap().capacity, 512 << 20);
        assert_eq!(DeviceShape::USUAL.options(&words("--capacity 1G")).unwrap().capacity, 1 << 30);
        let error = DeviceShape::USUAL.options(&words("--bogus")).unwrap_err();
        assert!(error.starts_with("unexpected argument '--bogus'") && error.contains("Usage"), "{error}");
        assert!(DeviceShape::USUAL.options(&words("--capacity 100M")).unwrap_err().contains("256 MiB"));
    }
}
