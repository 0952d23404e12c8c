//! The device process of a scenario, and the conversation with its control socket.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    control::Control,
    device_events::{DeviceEvent, Listener},
};
use crate::child;

/// The first argument that makes a harness program (or its test) be the device instead: see [`entry`].
const AS_DEVICE: &str = "as-device";

/// How long the device may take to be ready, to answer, and to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// What the device is made like. Sizes as on its command line.
#[derive(Clone, Copy, Debug)]
pub struct DeviceShape {
    /// HDM promised.
    pub capacity: &'static str,
    /// Media that exists.
    pub physical: &'static str,
    /// Bound on decompressed bytes.
    pub cache: &'static str,
    /// The codec.
    pub codec: &'static str,
    /// Further arguments.
    pub more: &'static [&'static str],
}

impl DeviceShape {
    /// 512 MiB promised, 256 MiB there, a 64 MiB cache, lz4.
    pub const USUAL: Self = Self { capacity: "512M", physical: "256M", cache: "64M", codec: "lz4", more: &[] };
}

/// Call this first in every `main` that runs scenarios: when the program was started as the device it is the device,
/// and what is returned is its exit code. So one file on disk is harness and device, and they never differ in version.
pub fn entry() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    if args.next()? != AS_DEVICE {
        return None;
    }
    Some(cxl_cram_device::cli::main(std::iter::once(program).chain(args)))
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
    /// Starts device number `index` with its sockets in `run` and its log in `log`, and waits until it is ready.
    pub fn start(index: usize, shape: &DeviceShape, more: &[String], run: &Path, log: &Path) -> Result<Self> {
        let (socket, control) = (run.join(format!("device{index}.sock")), run.join(format!("control{index}.sock")));
        // By this name it is the program that runs, also where another has been built in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("cxl-cram-harness").args([
            AS_DEVICE,
            "serve",
            "-v",
            "--capacity",
            shape.capacity,
            "--physical",
            shape.physical,
        ]);
        command.args(["--cache", shape.cache, "--codec", shape.codec]).args(shape.more).args(more);
        command.arg("--socket").arg(&socket).arg("--control").arg(&control);
        let log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).env_remove("CXL_CRAM_LOG");
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let mut child = command.spawn().context("cannot start the device")?;

        // The ready line ends the start; end of file without one means that the device gave up and said why.
        let stdout = child.stdout.take().context("the device has no output")?;
        let mut ready = String::new();
        let read = BufReader::new(stdout).read_line(&mut ready);
        let device = Self { child, socket, control, killed: false };
        if read.unwrap_or(0) == 0 {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("the device did not start: {}", said.lines().last().unwrap_or("it said nothing"));
        }
        Ok(device)
    }

    /// The socket for QEMU.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The socket that it is controlled by.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The device's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Executes one command on the control socket and returns what it returned.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let end = Instant::now() + LIMIT;
        let late = || Instant::now() >= end;
        Control::connect(&self.control, &late)?.execute(command, arguments, &late)
    }

    /// The device's poison list: DPA and bytes of each record.
    pub fn poison_list(&self) -> Result<Vec<(u64, u64)>> {
        let (mut all, mut start) = (Vec::new(), Some(0));
        while let Some(from) = start {
            let list = self.execute("query-poison", json!({ "start": from }))?;
            let records = list["records"].as_array().context("query-poison gave no records")?;
            let place = |record: &Value| Some((record["start"].as_u64()?, record["length"].as_u64()?));
            all.extend(
                records.iter().map(place).collect::<Option<Vec<_>>>().context("a record of poison has no place")?,
            );
            start = list["more"].as_u64();
        }
        Ok(all)
    }

    /// Bytes of everything on the device's poison list.
    pub fn poison_listed(&self) -> Result<u64> {
        Ok(self.poison_list()?.iter().map(|(_, length)| length).sum())
    }

    /// Has a thread hear what the device says from now on without being asked.
    pub(super) fn listen<T: Default + Send + 'static>(
        &self,
        hear: impl FnMut(&mut T, DeviceEvent) -> Result<()> + Send + 'static,
    ) -> Result<Listener<T>> {
        Listener::start(&self.control, hear)
    }

    /// Collects what the device says from now on without being asked.
    pub fn collect_events(&self) -> Result<Listener<Vec<DeviceEvent>>> {
        self.listen(|events: &mut Vec<_>, event| {
            events.push(event);
            Ok(())
        })
    }

    /// Occupancy and its context, exact: the device flushes first.
    pub fn status(&self) -> Result<Status> {
        Ok(serde_json::from_value(self.execute("query-status", json!({}))?)?)
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
        child::wait(&mut self.child, LIMIT)?.context("the device is killed and does not end")?;
        Ok(())
    }

    /// Whether the story killed it.
    pub(super) fn killed(&self) -> bool {
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

impl Drop for Device {
    fn drop(&mut self) {
        child::stop(&mut self.child, LIMIT);
    }
}

/// The answer of `query-status`, as far as scenarios use it. Bytes, unless said.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Whether a QEMU is connected.
    pub client_connected: bool,
    /// HDM promised.
    pub capacity: u64,
    /// Media that exists.
    pub physical: u64,
    /// Media taken.
    pub used: u64,
    /// Bytes that the guest has stored.
    pub logical: u64,
    /// Compressed payload.
    pub data: u64,
    /// Host memory for maps and descriptors.
    pub metadata: u64,
    /// What the window holds and has done.
    pub resident: Resident,
    /// Free media at which the low watermark is crossed.
    pub low_watermark: u64,
    /// Free media at which the high watermark is crossed.
    pub high_watermark: u64,
    /// Between a low and the next high crossing.
    pub blocked: bool,
    /// How often the medium crossed its watermarks since the start.
    pub crossings: Crossings,
    /// MSI-X vectors that were signalled to the guest, with how often since the start.
    pub interrupts: BTreeMap<u32, u64>,
    /// Bytes poisoned.
    pub poisoned: u64,
    /// Blocks lost to overflow.
    pub overflows: u64,
    /// Blocks that an adaptive codec has recompressed.
    pub recompressed_blocks: u64,
    /// Compressed bytes that this has saved.
    pub recompressed_saved: u64,
}

/// What the window holds, bytes, and has done, pages.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resident {
    /// Decompressed bytes now.
    pub bytes: u64,
    /// Pages that were asked of the store.
    pub faults: u64,
    /// Pages dropped to keep the bound.
    pub evicted: u64,
    /// Pages written back.
    pub written_back: u64,
}

/// Crossings of the watermarks.
#[derive(Clone, Debug, Deserialize)]
pub struct Crossings {
    /// Free media fell below the low watermark.
    pub low: u64,
    /// Free media rose above the high watermark after that.
    pub high: u64,
}
