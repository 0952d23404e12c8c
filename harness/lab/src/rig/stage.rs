//! What a guest is launched on: devices that serve, a machine, its kernel and initramfs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use super::device::Device;
use super::shape::{DeviceShape, MachineShape};
use crate::guest::initramfs::Initramfs;
use crate::machine::config;
use crate::machine::config::{Accel, Drive, MachineConfig, QemuCommand};
use crate::machine::launch::{self, Launch, LaunchError};
use crate::process::sockets;
use crate::provision::Provisioned;

/// How long a guest may take to boot, and to switch itself off.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The user's changes to every machine.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Ordinary memory, bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub processors: Option<u32>,
    /// KVM or TCG.
    pub accel: Option<Accel>,
    /// Firmware instead of QEMU's own.
    pub firmware: Option<PathBuf>,
    /// Added to the kernel's command line.
    pub append: String,
    /// Added to each device's command line.
    pub device_args: Vec<String>,
}

/// Devices that serve, and what to launch on them.
pub(crate) struct Stage {
    pub(crate) devices: Vec<Device>,
    pub(crate) machine: MachineConfig,
    pub(crate) launch: Launch,
    /// The devices' sockets. Removed last.
    pub(crate) run: TempDir,
}

impl Stage {
    /// Starts the devices and describes the machine. Logs go to `artifacts`.
    pub(crate) fn set(
        shapes: &[DeviceShape],
        shape: &MachineShape,
        overrides: &Overrides,
        provisioned: &Provisioned,
        artifacts: &Path,
    ) -> Result<Self> {
        // Not the artifact folder, whose path may be too long for a socket.
        let run = sockets::folder()?;
        let mut devices = Vec::new();
        let qemu = provisioned.qemu.clone();
        let mut machine = machine(Arc::new(move || qemu.command()), shape, overrides);
        let remedies = provisioned.kernel.remedies;
        machine.hidden_hypervisor = remedies.hide_hypervisor;
        for (index, shape) in shapes.iter().enumerate() {
            let capacity = shape.options(&overrides.device_args).map_err(|why| anyhow!(why))?.capacity;
            let device = Device::start(index, shape, &overrides.device_args, run.path(), artifacts)?;
            machine.devices.push(config::Device { socket: device.socket().to_owned(), capacity });
            devices.push(device);
        }
        if shape.corpus {
            let corpus =
                provisioned.corpus.clone().context("the machine needs the corpus, and none was provisioned")?;
            machine.drives.push(Drive { image: corpus, writable: false });
        }
        if let Some(mib) = shape.scratch_mib {
            let image = run.path().join("scratch.img");
            std::fs::File::create(&image)
                .and_then(|file| file.set_len(mib << 20))
                .with_context(|| format!("cannot make {}", image.display()))?;
            machine.drives.push(Drive { image, writable: true });
        }
        if shape.second_kernel {
            let [kernel, initrd] = second_kernel(&provisioned.kernel.image, artifacts);
            // Written when the machine is launched, with what its firmware has shown.
            std::fs::File::create(&initrd).with_context(|| format!("cannot make {}", initrd.display()))?;
            machine.drives.extend([kernel, initrd].map(|image| Drive { image, writable: false }));
        }
        let selftests = provisioned.kernel.selftests.clone().filter(|_| shape.selftests);
        let mut tools = vec![provisioned.guest_tools.clone()];
        tools.extend(selftests.into_iter().chain(provisioned.overlays.iter().cloned()));
        let launch = Launch {
            kernel: provisioned.kernel.image.clone(),
            initramfs: Initramfs {
                agent: provisioned.guest_program.clone(),
                modules: provisioned.kernel.modules.clone(),
                on_demand: provisioned.kernel.on_demand.clone(),
                release: provisioned.kernel.version.clone(),
                builtin: provisioned.kernel.builtin.clone(),
                tools,
                tables: Vec::new(),
            },
            append: words(&[remedies.append(), shape.append, &overrides.append]),
            expected: shape.expected.iter().map(|&line| line.to_owned()).collect(),
            terminal: None,
            debugger: None,
            artifacts: artifacts.to_owned(),
            ready_limit: BOOT_LIMIT,
            patience: provisioned.kernel.patience(),
        };
        Ok(Self { devices, machine, launch, run })
    }
}

/// A kernel's command line of these parts. The last word for an option counts, so the user's part comes last.
fn words(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// The kernel and the initramfs that the guest has as disks, to start them itself.
pub(crate) fn second_kernel(kernel: &Path, artifacts: &Path) -> [PathBuf; 2] {
    [kernel.to_owned(), launch::initrd(artifacts)]
}

/// The machine of a shape, without its devices and disks.
pub(crate) fn machine(qemu: QemuCommand, shape: &MachineShape, overrides: &Overrides) -> MachineConfig {
    let mut machine = MachineConfig::new(qemu);
    machine.memory = overrides.memory.unwrap_or(shape.memory_mib << 20);
    machine.processors = overrides.processors.unwrap_or(shape.processors);
    machine.accel = overrides.accel.unwrap_or(machine.accel);
    machine.firmware.clone_from(&overrides.firmware);
    machine.restarts = shape.restarts;
    machine.machine_checks = shape.machine_checks;
    machine.domains = shape.domains.to_vec();
    machine.decoders = shape.decoders;
    machine.soft_reserved = shape.soft_reserved;
    machine
}

/// The devices that ended unexpectedly, as a sentence.
pub(crate) fn ended(devices: &mut [Device]) -> Option<String> {
    let several = devices.len() > 1;
    let name = |index: usize| if several { format!("device {index}") } else { "the device".to_owned() };
    let ended: Vec<_> = devices
        .iter_mut()
        .enumerate()
        .filter_map(|(index, device)| Some(format!("{} ended: {}", name(index), device.ended()?)))
        .collect();
    (!ended.is_empty()).then(|| ended.join("; "))
}

/// Whether the host, not the guest's kernel, is why a guest did not come up.
pub(crate) fn host_at_fault(error: &anyhow::Error) -> bool {
    !matches!(error.downcast_ref(), Some(LaunchError::Guest(_)))
}
