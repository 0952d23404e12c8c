//! Ctrl-C, at any moment, leaves no process, no mount and no temporary file. Where a guest is needed and none can be
//! played with, the tests are skipped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use cxl_cram_harness::scenario::obstacle;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// A harness with a folder for its temporary files and one for what it shall leave.
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
            .stdout(Stdio::null())
            .stderr(fs::File::create(artifacts.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { child, temporary, artifacts }
    }

    /// Plays a scenario until `moment`.
    fn play_until(moment: impl Fn(&Self) -> bool) -> Self {
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

    /// Processes that it started, and theirs: all have its folder for temporary files.
    fn processes(&self) -> Vec<String> {
        let variable = format!("TMPDIR={}\0", self.temporary.path().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.windows(variable.len()).any(|part| part == variable.as_bytes()) {
                found.push(fs::read_to_string(entry.path().join("comm")).unwrap_or_default());
            }
        }
        found
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
        // A test that failed leaves nothing either.
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
    Harness::play_until(|harness| !harness.files().is_empty()).leaves_nothing_after_ctrl_c();
}

#[test]
fn while_the_firmware_places_bars() {
    if no_guest() {
        return;
    }
    Harness::play_until(|harness| harness.artifact("firmware/qemu.sh").exists()).leaves_nothing_after_ctrl_c();
}

#[test]
fn while_the_kernel_boots() {
    if no_guest() {
        return;
    }
    let booting = |harness: &Harness| contains(&harness.artifact("console.log"), "Linux version");
    Harness::play_until(booting).leaves_nothing_after_ctrl_c();
}

#[test]
fn while_the_story_is_told() {
    if no_guest() {
        return;
    }
    let told = |harness: &Harness| contains(&harness.artifact("console.log"), "Fallback order for Node 1");
    Harness::play_until(told).leaves_nothing_after_ctrl_c();
}

#[test]
fn a_harness_that_is_killed_takes_guest_and_device_with_it() {
    if no_guest() {
        return;
    }
    let booting = |harness: &Harness| contains(&harness.artifact("console.log"), "Linux version");
    let mut harness = Harness::play_until(booting);
    assert!(harness.processes().len() >= 3, "harness, device and QEMU: {:?}", harness.processes());
    harness.signal(Signal::KILL);
    harness.ended();
    wait("the processes' end", || harness.processes().is_empty());
    assert_eq!(harness.mounts(), [""; 0]);
    // What only the harness itself could have removed: the folder of its sockets.
    assert!(harness.files().iter().all(|name| !name.starts_with("cxl-cram-window")), "{:?}", harness.files());
}

/// A program that says it is a QEMU that will do.
const QEMU: &str =
    "#!/bin/sh\ncase $1 in --version) echo QEMU emulator version 11.1.3;; *) echo 'name \"vfio-user-pci\"';; esac\n";

#[test]
fn while_a_kernel_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("qemu"), QEMU).unwrap();
    fs::set_permissions(at("qemu"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at("tree")).unwrap();
    // Whatever is asked of this kernel's build takes long.
    let makefile =
        format!("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n%:\n\ttouch {}; exec sleep 1000\n", at("begun"));
    fs::write(at("tree/Makefile"), makefile).unwrap();
    let (qemu, tree, cache) = (at("qemu"), at("tree"), at("cache"));
    let arguments = ["kernel", "build", "--offline", "--qemu", &qemu, "--kernel-tree", &tree, "--cache-dir", &cache];
    let mut harness = Harness::start(&arguments, tempfile::tempdir().unwrap());
    let stderr = harness.artifacts.path().join("stderr");
    wait("the build to begin", || {
        assert_eq!(harness.child.try_wait().unwrap(), None, "{}", fs::read_to_string(&stderr).unwrap());
        folder.path().join("begun").exists()
    });
    harness.leaves_nothing_after_ctrl_c();
}
