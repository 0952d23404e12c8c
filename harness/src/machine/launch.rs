//! From a configuration to a guest that answers: learn, build the initramfs, boot, wait.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use cxl_cram_guest::protocol::Hello;

use super::boot::{Boot, BootError, Machine};
use super::config::MachineConfig;
use super::learn::{LearnError, Learnt, learn};
use super::terminal::Terminal;
use super::topology::{self, Sockets};
use crate::guest::client::{Guest, GuestError};
use crate::guest::initramfs::{Initramfs, InitramfsError};

/// How long the firmware may take.
const LEARN_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no guest.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The artifacts could not be written.
    #[error("make {path} writable")]
    Artifacts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The firmware-only boot failed.
    #[error("the firmware-only boot failed")]
    Learn(#[from] LearnError),
    /// There is no initramfs.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// QEMU did not start.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest did not come up.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// What to launch, besides the machine.
#[derive(Clone, Debug)]
pub struct Launch {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The guest's files. CEDT and SRAT are made and added; other ACPI tables may be in it.
    pub initramfs: Initramfs,
    /// Added to the kernel's command line.
    pub append: String,
    /// Parts of console lines that are no trouble in this run.
    pub expected: Vec<String>,
    /// Whom the console is shown to, and who types on it.
    pub terminal: Option<Terminal>,
    /// Where the run's files go. Made when it does not exist.
    pub artifacts: PathBuf,
    /// How long the guest may take to come up.
    pub ready_limit: Duration,
    /// How many times slower the guest's kernel is than what limits are made for.
    pub patience: u32,
}

/// A machine whose guest answers.
pub struct Launched {
    /// The machine: keep it for as long as the guest shall live.
    pub machine: Machine,
    /// The guest.
    pub guest: Guest,
    /// What its agent said first.
    pub hello: Hello,
    /// What the firmware made.
    pub learnt: Learnt,
    /// How long each step took.
    pub times: Times,
}

/// How long each step took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The firmware-only boot, where this machine was not known yet.
    pub learn: Duration,
    /// Building and writing the initramfs.
    pub initramfs: Duration,
    /// From QEMU's start to the agent's hello.
    pub boot: Duration,
}

/// Learns, builds, boots and waits. The devices must be serving.
///
/// # Errors
/// A step fails. What the machine wrote is in the artifacts.
pub fn launch(config: &MachineConfig, launch: &Launch) -> Result<Launched, LaunchError> {
    let begin = Instant::now();
    let firmware = launch.artifacts.join("firmware");
    fs::create_dir_all(&firmware).map_err(|source| LaunchError::Artifacts { path: firmware.clone(), source })?;
    let learnt = learnt(config, &firmware)?;
    let learned = Instant::now();

    let mut initramfs = launch.initramfs.clone();
    initramfs.tables.extend(learnt.overrides(config)?);
    let initrd = launch.artifacts.join("initrd.img");
    fs::write(&initrd, initramfs.build()?).map_err(|source| LaunchError::Artifacts { path: initrd.clone(), source })?;
    let built = Instant::now();

    let boot = Boot {
        kernel: launch.kernel.clone(),
        initrd,
        append: launch.append.clone(),
        expected: launch.expected.clone(),
        terminal: launch.terminal.clone(),
        patience: launch.patience,
    };
    let machine = Machine::boot(config, &boot, &launch.artifacts)?;
    let (guest, hello) = machine.wait_ready(launch.ready_limit)?;
    let times = Times { learn: learned - begin, initramfs: built - learned, boot: built.elapsed() };
    Ok(Launched { machine, guest, hello, learnt, times })
}

/// What the firmware makes of a machine. The same machine comes out the same every time: this process asks once for each.
fn learnt(config: &MachineConfig, logs: &Path) -> Result<Learnt, LaunchError> {
    static KNOWN: Mutex<BTreeMap<Vec<OsString>, Learnt>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = shape(config);
    if let Some(learnt) = known().get(&shape) {
        return Ok(learnt.clone());
    }
    let learnt = learn_in_temporary(config, logs)?;
    known().insert(shape, learnt.clone());
    Ok(learnt)
}

/// All that the firmware sees of a machine: how QEMU is called but for the names of files, and the capacities of the devices.
fn shape(config: &MachineConfig) -> Vec<OsString> {
    let mut nameless = config.clone();
    nameless.devices.iter_mut().for_each(|device| device.socket = PathBuf::new());
    nameless.drives.iter_mut().for_each(|drive| drive.image = PathBuf::new());
    let qemu = (config.qemu)();
    let mut shape = vec![qemu.get_program().to_owned()];
    shape.extend(qemu.get_args().map(OsString::from));
    shape.extend(topology::arguments(&nameless, &Sockets::in_directory(Path::new("")), None));
    shape.extend(config.devices.iter().map(|device| device.capacity.to_string().into()));
    shape
}

/// The sockets of the firmware-only boot need a short path: an artifact directory may be deeper than a socket's name
/// can be long. Its logs go to the artifacts.
fn learn_in_temporary(config: &MachineConfig, logs: &Path) -> Result<Learnt, LaunchError> {
    let directory = tempfile::Builder::new()
        .prefix("cxl-cram-")
        .tempdir()
        .map_err(|source| LaunchError::Artifacts { path: std::env::temp_dir(), source })?;
    Ok(learn(config, directory.path(), logs, LEARN_LIMIT)?)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::Arc};

    use super::{super::config::Device, *};

    #[test]
    fn a_machine_is_known_by_what_its_firmware_sees_not_by_its_files() {
        let machine = |socket: &str, capacity| {
            let mut config = MachineConfig::new(Arc::new(|| Command::new("qemu-system-x86_64")));
            config.devices = vec![Device { socket: socket.into(), capacity }];
            config
        };
        let one = shape(&machine("/a", 1 << 28));
        assert_eq!(one, shape(&machine("/b", 1 << 28)));
        assert_ne!(one, shape(&machine("/a", 1 << 29)));
        assert_ne!(one, shape(&MachineConfig { memory: 2 << 30, ..machine("/a", 1 << 28) }));
    }
}
