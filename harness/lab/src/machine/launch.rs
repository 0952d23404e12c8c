//! Launches a machine: boots the firmware, builds the initramfs, boots the kernel and waits for the guest's agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use cxl_cram_kit::size::format_bytes;
use cxl_cram_wire::protocol::Hello;

use super::boot::{Boot, BootError, Machine};
use super::config::MachineConfig;
use super::learn::{LearnError, Learned, learn};
use super::process::remedy;
use super::terminal::Terminal;
use super::topology;
use super::topology::Sockets;
use crate::guest::client::{Guest, GuestError};
use crate::guest::initramfs::{Initramfs, InitramfsError};

/// How long the firmware may take.
const LEARN_LIMIT: Duration = Duration::from_secs(60);

/// Memory that a guest needs besides its files, at least.
const KERNEL: u64 = 96 << 20;

/// An error that prevents a guest from coming up.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// An artifact cannot be written.
    #[error("cannot write {path}{}", remedy(source))]
    Artifacts {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The firmware-only boot failed.
    #[error("the firmware-only boot failed")]
    Learn(#[from] LearnError),
    /// The guest's files do not fit its memory.
    #[error(
        "the guest's files (--overlay, --packages) take {}, too much for its {} of memory; use --memory {}M or more",
        format_bytes(*initrd), format_bytes(*memory), needed(*initrd).div_ceil(256 << 20) * 256
    )]
    TooLarge {
        /// The initramfs, bytes.
        initrd: u64,
        /// The guest's memory, bytes.
        memory: u64,
    },
    /// The initramfs cannot be built.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// QEMU did not start.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest did not come up.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// What to launch on the machine.
#[derive(Clone, Debug)]
pub struct Launch {
    /// A bzImage.
    pub kernel: PathBuf,
    /// The guest's files. CEDT and SRAT overrides are added; it may hold other ACPI tables.
    pub initramfs: Initramfs,
    /// Added to the kernel's command line.
    pub append: String,
    /// Console lines containing one of these are not trouble in this run.
    pub expected: Vec<String>,
    /// Terminal attached to the guest console, if any.
    pub terminal: Option<Terminal>,
    /// Host port on which QEMU waits for a debugger before the guest's first instruction.
    pub debugger: Option<u16>,
    /// Folder for the run's files, created if missing.
    pub artifacts: PathBuf,
    /// How long the guest may take to come up.
    pub ready_limit: Duration,
    /// Factor by which limits are extended for a slow guest kernel.
    pub patience: u32,
}

/// A machine whose guest answers.
pub struct Launched {
    /// The machine. Dropping it kills the guest.
    pub machine: Machine,
    /// The guest.
    pub guest: Guest,
    /// The agent's hello.
    pub hello: Hello,
    /// The firmware's BARs and tables.
    pub learned: Learned,
    /// How long each step took.
    pub times: Times,
}

/// How long each step took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The firmware-only boot; close to zero if this process has already booted the same machine.
    pub learn: Duration,
    /// Building and writing the initramfs.
    pub initramfs: Duration,
    /// From QEMU's start to the agent's hello.
    pub boot: Duration,
}

/// A machine that has been started.
pub struct Started {
    machine: Machine,
    learned: Learned,
    ready_limit: Duration,
    learn: Duration,
    initramfs: Duration,
    begin: Instant,
}

/// Starts a machine and waits for its guest. The devices must be serving.
///
/// # Errors
/// Any step fails. The machine's console and messages are in the artifacts.
pub fn launch(config: &MachineConfig, launch: &Launch) -> Result<Launched, LaunchError> {
    start(config, launch)?.wait()
}

/// Starts a machine without waiting for its guest. The devices must be serving.
///
/// # Errors
/// Any step fails. The machine's console and messages are in the artifacts.
pub fn start(config: &MachineConfig, launch: &Launch) -> Result<Started, LaunchError> {
    let begin = Instant::now();
    let firmware = launch.artifacts.join("firmware");
    fs::create_dir_all(&firmware).map_err(|source| LaunchError::Artifacts { path: firmware.clone(), source })?;
    let learned = learn_once(config, &firmware)?;
    let learned_at = Instant::now();

    let mut initramfs = launch.initramfs.clone();
    initramfs.tables.extend(learned.overrides(config)?);
    let initrd = initrd(&launch.artifacts);
    let bytes = initramfs.build()?;
    let size = bytes.len() as u64;
    if needed(size) > config.memory {
        return Err(LaunchError::TooLarge { initrd: size, memory: config.memory });
    }
    fs::write(&initrd, bytes).map_err(|source| LaunchError::Artifacts { path: initrd.clone(), source })?;
    let built = Instant::now();

    let boot = Boot {
        kernel: launch.kernel.clone(),
        initrd,
        append: format!("{}{}", launch.append, soft_reserved(config, &learned)),
        expected: launch.expected.clone(),
        terminal: launch.terminal.clone(),
        debugger: launch.debugger,
        patience: launch.patience,
    };
    let machine = Machine::boot(config, &boot, &launch.artifacts)?;
    let ready_limit = launch.ready_limit;
    Ok(Started {
        machine,
        learned,
        ready_limit,
        learn: learned_at - begin,
        initramfs: built - learned_at,
        begin: built,
    })
}

impl Started {
    /// Waits until the guest answers.
    ///
    /// # Errors
    /// As [`Machine::wait_ready`].
    pub fn wait(self) -> Result<Launched, LaunchError> {
        let Self { machine, learned, ready_limit, learn, initramfs, begin } = self;
        let (guest, hello) = machine.wait_ready(ready_limit)?;
        let times = Times { learn, initramfs, boot: begin.elapsed() };
        Ok(Launched { machine, guest, hello, learned, times })
    }
}

/// The kernel's arguments that mark the windows as soft-reserved, if they are to be: memory for a specific purpose (UEFI 2.10,
/// section 7.2.3), which a driver gives out. SeaBIOS has no way to say so in its memory map.
fn soft_reserved(config: &MachineConfig, learned: &Learned) -> String {
    const SOFT_RESERVED: u32 = 0xefff_ffff;
    let windows = learned.bars.iter().zip(&config.devices).filter(|_| config.soft_reserved);
    windows
        .map(|(bar, device)| format!(" memmap={:#x}%{:#x}+{SOFT_RESERVED:#x}", device.capacity, bar.address))
        .collect()
}

/// The file that has a machine's initramfs.
pub(crate) fn initrd(artifacts: &Path) -> PathBuf {
    artifacts.join("initrd.img")
}

/// Memory that a guest needs for an initramfs of this size, in bytes. The archive and its unpacked files exist at the same
/// time, and Linux gives the files at most half of the memory.
fn needed(initrd: u64) -> u64 {
    initrd.saturating_mul(2).saturating_add(KERNEL)
}

/// Boots a machine's firmware, once per process for each machine: the result is always the same.
fn learn_once(config: &MachineConfig, logs: &Path) -> Result<Learned, LaunchError> {
    static KNOWN: Mutex<BTreeMap<Vec<OsString>, Learned>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = shape(config);
    if let Some(learned) = known().get(&shape) {
        return Ok(learned.clone());
    }
    let learned = learn_in_temporary(config, logs)?;
    known().insert(shape, learned.clone());
    Ok(learned)
}

/// Everything that the firmware sees of a machine, and what is asked of it: the QEMU command without file names, the devices'
/// capacities, and whether the decoders' registers are wanted.
fn shape(config: &MachineConfig) -> Vec<OsString> {
    let mut nameless = config.clone();
    nameless.devices.iter_mut().for_each(|device| device.socket = PathBuf::new());
    nameless.drives.iter_mut().for_each(|drive| drive.image = PathBuf::new());
    let qemu = (config.qemu)();
    let mut shape = vec![qemu.get_program().to_owned()];
    shape.extend(qemu.get_args().map(OsString::from));
    shape.extend(topology::arguments(&nameless, &Sockets::in_directory(Path::new("")), None));
    shape.extend(config.devices.iter().map(|device| device.capacity.to_string().into()));
    shape.push(format!("{:?}", config.decoders).into());
    shape
}

/// Boots the firmware with its sockets in a temporary folder: the artifacts' path may be too long for a socket. The logs go
/// to the artifacts.
fn learn_in_temporary(config: &MachineConfig, logs: &Path) -> Result<Learned, LaunchError> {
    let directory = tempfile::Builder::new()
        .prefix("cxl-cram-")
        .tempdir()
        .map_err(|source| LaunchError::Artifacts { path: std::env::temp_dir(), source })?;
    Ok(learn(config, directory.path(), logs, LEARN_LIMIT)?)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::Arc};

    use super::*;
    use crate::machine::config::Device;
    use crate::machine::decoders::Decoders;

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
        assert_eq!(one, shape(&MachineConfig { soft_reserved: true, ..machine("/a", 1 << 28) }));
        assert_ne!(one, shape(&MachineConfig { decoders: Decoders::Committed, ..machine("/a", 1 << 28) }));
    }
}
