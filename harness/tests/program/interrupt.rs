//! Ctrl-C at any moment leaves no process, no mount and no temporary file. Tests that need a guest are skipped where none can
//! run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use cxl_cram_lab::rig::obstacle;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// A harness with a folder for its temporary files and one for its artifacts.
struct Harness {
    child: Child,
    temporary: TempDir,
    artifacts: TempDir,
}

impl Harness {
    fn start(arguments: &[&str], artifacts: TempDir) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"))
            .args(arguments)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(artifacts.path().join("stdout")).unwrap())
            .stderr(fs::File::create(artifacts.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { child, temporary, artifacts }
    }

    /// Runs a scenario until `moment`.
    fn run_until(moment: impl Fn(&Self) -> bool) -> Self {
        let artifacts = tempfile::tempdir().unwrap();
        let path = artifacts.path().to_str().unwrap().to_owned();
        let mut harness = Self::start(&["run", "=integrity", "--artifacts", &path], artifacts);
        wait("the moment", || {
            assert_eq!(harness.child.try_wait().unwrap(), None, "it ended before the moment came");
            moment(&harness)
        });
        harness
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        wait("its end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    fn artifact(&self, name: &str) -> PathBuf {
        self.artifacts.path().join("integrity").join(name)
    }

    /// The output on a stream.
    fn printed(&self, stream: &str) -> String {
        fs::read_to_string(self.artifacts.path().join(stream)).unwrap()
    }

    /// The folders in /proc of all processes below it: their environment names its folder for temporary files.
    fn process_folders(&self) -> Vec<PathBuf> {
        let variable = format!("TMPDIR={}\0", self.temporary.path().display());
        let has = |folder: &PathBuf| {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            environment.windows(variable.len()).any(|part| part == variable.as_bytes())
        };
        fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(has).collect()
    }

    /// The names of these processes.
    fn processes(&self) -> Vec<String> {
        let name = |folder: PathBuf| fs::read_to_string(folder.join("comm")).unwrap_or_default();
        self.process_folders().into_iter().map(name).collect()
    }

    /// Kills its device without warning.
    fn kill_device(&self) {
        let is_device = |folder: &&PathBuf| contains(&folder.join("cmdline"), "as-device");
        let folders = self.process_folders();
        let devices: Vec<_> = folders.iter().filter(is_device).collect();
        assert!(!devices.is_empty());
        for folder in devices {
            let pid = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let path = self.temporary.path().to_str().unwrap();
        mounts.lines().filter(|line| line.contains(path)).map(ToOwned::to_owned).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.temporary.path()).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn leaves_nothing_after_ctrl_c(mut self) {
        self.signal(Signal::INT);
        assert_eq!(self.ended().code(), Some(130));
        assert_eq!(self.processes(), [""; 0], "processes");
        assert_eq!(self.mounts(), [""; 0], "mounts");
        assert_eq!(self.files(), [""; 0], "temporary files");
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        // A failed test must leave nothing either.
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn wait(what: &str, holds: impl FnMut() -> bool) {
    let mut holds = holds;
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn no_guest() -> bool {
    obstacle().inspect(|obstacle| println!("skipping: {obstacle}")).is_some()
}

fn contains(path: &Path, part: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(part))
}

#[test]
fn while_the_device_starts() {
    if no_guest() {
        return;
    }
    Harness::run_until(|harness| !harness.files().is_empty()).leaves_nothing_after_ctrl_c();
}

#[test]
fn while_the_firmware_places_bars() {
    if no_guest() {
        return;
    }
    Harness::run_until(|harness| harness.artifact("firmware/qemu.sh").exists()).leaves_nothing_after_ctrl_c();
}

#[test]
fn while_the_kernel_boots() {
    if no_guest() {
        return;
    }
    let booting = |harness: &Harness| contains(&harness.artifact("console.log"), "Linux version");
    Harness::run_until(booting).leaves_nothing_after_ctrl_c();
}

fn node_is_online(harness: &Harness) -> bool {
    contains(&harness.artifact("console.log"), "Fallback order for Node 1")
}

#[test]
fn while_the_scenario_runs() {
    if no_guest() {
        return;
    }
    Harness::run_until(node_is_online).leaves_nothing_after_ctrl_c();
}

#[test]
fn an_interrupted_scenario_is_counted_without_further_output() {
    if no_guest() {
        return;
    }
    let mut harness = Harness::run_until(node_is_online);
    harness.signal(Signal::TERM);
    assert_eq!(harness.ended().code(), Some(130));
    let printed = harness.printed("stdout");
    assert!(printed.starts_with("0 passed, 0 failed, 0 skipped, 1 interrupted in "), "{printed}");
}

#[test]
fn an_interrupted_command_in_a_guest_prints_one_word() {
    if no_guest() {
        return;
    }
    let mut harness = Harness::start(&["boot", "-c", "echo begun; sleep 1000"], tempfile::tempdir().unwrap());
    wait("the command", || {
        assert_eq!(harness.child.try_wait().unwrap(), None, "{}", harness.printed("stderr"));
        harness.printed("stdout") == "begun\n"
    });
    harness.signal(Signal::INT);
    assert_eq!(harness.ended().code(), Some(130));
    let error = harness.printed("stderr");
    assert_eq!(error.lines().skip(1).collect::<Vec<_>>(), ["interrupted"], "{error}");
}

#[test]
fn a_killed_device_is_reported_as_the_cause() {
    if no_guest() {
        return;
    }
    let mut harness = Harness::run_until(node_is_online);
    harness.kill_device();
    assert_eq!(harness.ended().code(), Some(1));
    let printed = harness.printed("stdout");
    assert!(printed.contains("the device ended: killed by SIGKILL"), "{printed}");
    assert!(!printed.contains("console:"), "{printed}");
}

#[test]
fn a_killed_harness_takes_guest_and_device_with_it() {
    if no_guest() {
        return;
    }
    let booting = |harness: &Harness| contains(&harness.artifact("console.log"), "Linux version");
    let mut harness = Harness::run_until(booting);
    assert!(harness.processes().len() >= 3, "harness, device and QEMU: {:?}", harness.processes());
    harness.signal(Signal::KILL);
    harness.ended();
    wait("the processes' end", || harness.processes().is_empty());
    assert_eq!(harness.mounts(), [""; 0]);
    // Only the folder of the sockets may stay, which only the harness itself could have removed.
    assert!(harness.files().iter().all(|name| !name.starts_with("cxl-cram-window")), "{:?}", harness.files());
}

#[test]
fn while_a_kernel_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("tree")).unwrap();
    // Every target of this kernel's build takes long.
    let makefile =
        format!("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n%:\n\ttouch {}; exec sleep 1000\n", at("begun"));
    fs::write(at("tree/Makefile"), makefile).unwrap();
    let (tree, cache) = (at("tree"), at("cache"));
    let arguments = ["kernel", "build", "--offline", "--kernel-tree", &tree, "--cache-dir", &cache];
    let mut harness = Harness::start(&arguments, tempfile::tempdir().unwrap());
    let stderr = harness.artifacts.path().join("stderr");
    wait("the build to begin", || {
        assert_eq!(harness.child.try_wait().unwrap(), None, "{}", fs::read_to_string(&stderr).unwrap());
        folder.path().join("begun").exists()
    });
    harness.leaves_nothing_after_ctrl_c();
}
