//! The stage a story is told on, before the guest is there: devices that serve, a machine, what is to be launched on it.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use cxl_cram_device::size::parse_bytes;
use tempfile::TempDir;

use super::{Device, DeviceShape, MachineShape};
use crate::{
    guest::initramfs::Initramfs,
    machine::{
        config::{self, Accel, Drive, MachineConfig},
        launch::Launch,
    },
    provision::Provisioned,
};

/// What the user changes of every machine.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Ordinary memory, bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub processors: Option<u32>,
    /// How instructions are executed.
    pub accel: Option<Accel>,
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
        // A socket's name must be short: the artifact folder may be deep.
        let run = tempfile::Builder::new().prefix("cxl-cram-").tempdir().context("cannot make a temporary folder")?;
        let mut devices = Vec::new();
        let qemu = provisioned.qemu.clone();
        let mut machine = MachineConfig::new(Arc::new(move || qemu.command()));
        machine.memory = overrides.memory.unwrap_or(shape.memory_mib << 20);
        machine.processors = overrides.processors.unwrap_or(shape.processors);
        machine.accel = overrides.accel.unwrap_or(machine.accel);
        machine.restarts = shape.restarts;
        machine.machine_checks = shape.machine_checks;
        machine.domains = shape.domains.to_vec();
        for (index, shape) in shapes.iter().enumerate() {
            let log = artifacts.join(format!("device{index}.log"));
            let device = Device::start(index, shape, &overrides.device_args, run.path(), &log)?;
            let capacity = parse_bytes(shape.capacity).map_err(|why| anyhow!(why))?;
            machine.devices.push(config::Device { socket: device.socket().to_owned(), capacity });
            devices.push(device);
        }
        if shape.corpus {
            machine.drives.push(Drive { image: provisioned.corpus.clone(), writable: false });
        }
        if let Some(mib) = shape.scratch_mib {
            let image = run.path().join("scratch.img");
            std::fs::File::create(&image)
                .and_then(|file| file.set_len(mib << 20))
                .with_context(|| format!("cannot make {}", image.display()))?;
            machine.drives.push(Drive { image, writable: true });
        }
        let launch = Launch {
            kernel: provisioned.kernel.image.clone(),
            initramfs: Initramfs {
                agent: provisioned.guest_program.clone(),
                modules: provisioned.kernel.modules.clone(),
                on_demand: provisioned.kernel.on_demand.clone(),
                tools: vec![provisioned.guest_tools.clone()],
                tables: Vec::new(),
            },
            append: format!("{} {}", shape.append, overrides.append).trim().to_owned(),
            expected: shape.expected.iter().map(|&line| line.to_owned()).collect(),
            terminal: None,
            artifacts: artifacts.to_owned(),
            ready_limit: super::lab::BOOT_LIMIT,
            patience: provisioned.kernel.patience(),
        };
        Ok(Self { devices, machine, launch, run })
    }
}
