//! The machine's configuration.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use thiserror::Error;

use super::address_space::AddressSpace;
use super::decoders::Decoders;
use super::kvm;
pub use kvm::processor_can_virtualize;

/// Granularity of windows and HDM capacity, in bytes (CXL 3.1 section 9.18.1.3).
pub const WINDOW_UNIT: u64 = cxl_cram_device::shape::CAPACITY_UNIT;
/// Maximum number of devices: each has a root port on the one CXL host bridge.
pub const MAX_DEVICES: usize = 8;
/// Granularity of guest memory, in bytes.
pub const MEMORY_UNIT: u64 = 1 << 20;

/// How QEMU executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// On the processor.
    Kvm,
    /// By binary translation.
    Tcg,
}

impl Accel {
    /// KVM where it can be used.
    pub fn choose() -> Self {
        if kvm::obstacle().is_none() { Self::Kvm } else { Self::Tcg }
    }
}

/// Makes the command that starts QEMU, without the machine's arguments.
pub type QemuCommand = Arc<dyn Fn() -> Command + Send + Sync>;

/// A vfio-user device to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The device's socket.
    pub socket: PathBuf,
    /// HDM capacity in bytes, a multiple of [`WINDOW_UNIT`]: the size of the window.
    pub capacity: u64,
}

/// The proximity domain of a window: its performance, as seen from node 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Access latency, nanoseconds.
    pub latency_ns: u32,
    /// Access bandwidth, GiB/s.
    pub bandwidth_gib: u32,
}

impl Domain {
    /// Access latency of node 0's own memory, nanoseconds.
    pub const LOCAL_LATENCY_NS: u32 = 90;

    /// The SLIT distance from node 0, in proportion to latency: node 0's own is 10. `None` if it is not within 11 to 254,
    /// the range that the table can hold.
    pub fn distance(self) -> Option<u8> {
        let distance = u64::from(self.latency_ns) * 10 / u64::from(Self::LOCAL_LATENCY_NS);
        u8::try_from(distance).ok().filter(|distance| (11..=254).contains(distance))
    }
}

/// A drive: `/dev/vda` and so on in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// A raw image.
    pub image: PathBuf,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// The machine. The firmware-only boot and the kernel boot use the same one, because the firmware's choices depend on all
/// of it.
#[derive(Clone)]
pub struct MachineConfig {
    /// Starts QEMU, version 10.1 or later.
    pub qemu: QemuCommand,
    /// The accelerator.
    pub accel: Accel,
    /// Memory of node 0, in bytes, a multiple of [`MEMORY_UNIT`].
    pub memory: u64,
    /// Number of processors.
    pub processors: u32,
    /// Devices in this order, each behind its own root port.
    pub devices: Vec<Device>,
    /// The proximity domains of the first devices' windows, described by SRAT, HMAT and SLIT. If there is any, the HMAT
    /// omits the path to the host bridge: Linux would prefer that path plus CDAT to the HMAT entry of the window.
    pub domains: Vec<Domain>,
    /// Whether the firmware commits the decoders.
    pub decoders: Decoders,
    /// Let the kernel take the windows for soft-reserved memory, as if the firmware's memory map said so.
    pub soft_reserved: bool,
    /// Firmware instead of QEMU's own: a file for `-bios`, such as OVMF's.
    pub firmware: Option<PathBuf>,
    /// Drives, in this order.
    pub drives: Vec<Drive>,
    /// Let the guest restart. Otherwise a restart, and so a panic, ends QEMU.
    pub restarts: bool,
    /// Present an Intel processor, so that Linux survives injected machine checks.
    pub machine_checks: bool,
    /// Do not let the processor say that it is virtual: Linux makes no CXL region under a hypervisor, unless it is configured to.
    pub hidden_hypervisor: bool,
    /// Additional QEMU arguments, after all others.
    pub extra: Vec<OsString>,
}

/// An invalid machine configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A capacity that is zero or not a multiple of [`WINDOW_UNIT`].
    #[error("the capacity of device {0} must be a multiple of 256 MiB and not zero")]
    Capacity(usize),
    /// No devices, or more than [`MAX_DEVICES`].
    #[error("a machine needs 1 to {MAX_DEVICES} devices")]
    Devices,
    /// The devices do not fit the address space.
    #[error("{}", too_large(capacities, *bits, *largest))]
    AddressSpace {
        /// The devices' capacities, bytes.
        capacities: Vec<u64>,
        /// Bits of a physical address.
        bits: u32,
        /// The largest capacity that fits once for each device, bytes.
        largest: Option<u64>,
    },
    /// A memory size that QEMU would refuse.
    #[error("the guest's memory must be a multiple of 1 MiB, and at least 256 MiB")]
    Memory,
    /// A processor count that QEMU would refuse.
    #[error("the guest must have 1 to 255 processors")]
    Processors,
    /// More domains than devices.
    #[error("there are more domains than devices")]
    Domains,
    /// A domain that the tables cannot describe.
    #[error("the domain of window {0} must have a latency of 100 to 2294 ns and a bandwidth of 1 to 1024 GiB/s")]
    Domain(usize),
    /// A path that QEMU's option syntax or JSON cannot hold.
    #[error("the path {0:?} is not UTF-8")]
    Path(PathBuf),
}

/// States what was requested and what would fit.
fn too_large(capacities: &[u64], bits: u32, largest: Option<u64>) -> String {
    let asked: Vec<_> = capacities.iter().map(|capacity| exact(*capacity)).collect();
    let each = if asked.len() > 1 { format!(" of each of {} devices", asked.len()) } else { String::new() };
    let most = match largest {
        Some(largest) => format!("the largest capacity{each} is {}", exact(largest)),
        None => "its memory leaves no room for a window".to_owned(),
    };
    format!("{} does not fit this guest's address space of {bits} bits: {most}", asked.join(" and "))
}

/// Formats a multiple of [`WINDOW_UNIT`] without rounding.
fn exact(bytes: u64) -> String {
    let (shift, unit) = match bytes.trailing_zeros() {
        40.. => (40, "TiB"),
        30.. => (30, "GiB"),
        _ => (20, "MiB"),
    };
    format!("{} {unit}", bytes >> shift)
}

impl MachineConfig {
    /// A machine with 1 GiB of memory, two processors and no devices.
    pub fn new(qemu: QemuCommand) -> Self {
        Self {
            qemu,
            accel: Accel::choose(),
            memory: 1 << 30,
            processors: 2,
            devices: Vec::new(),
            domains: Vec::new(),
            decoders: Decoders::Open,
            soft_reserved: false,
            firmware: None,
            drives: Vec::new(),
            restarts: false,
            machine_checks: false,
            hidden_hypervisor: false,
            extra: Vec::new(),
        }
    }

    /// Checks the configuration, with clearer messages than QEMU's.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_DEVICES).contains(&self.devices.len()) {
            return Err(ConfigError::Devices);
        }
        let bad = |device: &Device| device.capacity == 0 || !device.capacity.is_multiple_of(WINDOW_UNIT);
        if let Some(index) = self.devices.iter().position(bad) {
            return Err(ConfigError::Capacity(index));
        }
        if self.memory < 256 << 20 || !self.memory.is_multiple_of(MEMORY_UNIT) {
            return Err(ConfigError::Memory);
        }
        if !(1..=255).contains(&self.processors) {
            return Err(ConfigError::Processors);
        }
        let capacities: Vec<_> = self.devices.iter().map(|device| device.capacity).collect();
        // What is known of the address space is SeaBIOS's way to use it.
        if let Some(space) = AddressSpace::of(self).filter(|_| self.firmware.is_none())
            && !space.holds(&capacities)
        {
            let largest = space.largest(capacities.len());
            return Err(ConfigError::AddressSpace { capacities, bits: space.bits, largest });
        }
        if self.domains.len() > self.devices.len() {
            return Err(ConfigError::Domains);
        }
        let bad = |domain: &Domain| domain.distance().is_none() || !(1..=1024).contains(&domain.bandwidth_gib);
        if let Some(index) = self.domains.iter().position(bad) {
            return Err(ConfigError::Domain(index));
        }
        let sockets = self.devices.iter().map(|device| &device.socket);
        let files = self.drives.iter().map(|drive| &drive.image).chain(&self.firmware);
        let mut paths = sockets.chain(files);
        paths.find(|path| path.to_str().is_none()).map_or(Ok(()), |path| Err(ConfigError::Path(path.clone())))
    }
}

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineConfig")
            .field("accel", &self.accel)
            .field("memory", &self.memory)
            .field("processors", &self.processors)
            .field("devices", &self.devices)
            .field("domains", &self.domains)
            .field("decoders", &self.decoders)
            .field("soft_reserved", &self.soft_reserved)
            .field("firmware", &self.firmware)
            .field("drives", &self.drives)
            .field("restarts", &self.restarts)
            .field("machine_checks", &self.machine_checks)
            .field("hidden_hypervisor", &self.hidden_hypervisor)
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_machine_is_refused() {
        let mut config = MachineConfig::new(Arc::new(|| Command::new("qemu-system-x86_64")));
        assert_eq!(config.check(), Err(ConfigError::Devices));
        config.devices.push(Device { socket: "s".into(), capacity: 512 << 20 });
        assert_eq!(config.check(), Ok(()));
        config.devices.push(Device { socket: "t".into(), capacity: 100 << 20 });
        assert_eq!(config.check(), Err(ConfigError::Capacity(1)));
        config.devices[1].capacity = 0;
        assert_eq!(config.check(), Err(ConfigError::Capacity(1)));
        config.devices.pop();
        config.memory = (1 << 30) + 1;
        assert_eq!(config.check(), Err(ConfigError::Memory));
        config.memory = 1 << 30;
        config.accel = Accel::Tcg;
        config.devices[0].capacity = 256 << 30;
        let sentence = "256 GiB does not fit this guest's address space of 40 bits: the largest capacity is 261888 MiB";
        assert_eq!(config.check().unwrap_err().to_string(), sentence);
        config.devices[0].capacity = 128 << 30;
        config.domains = vec![Domain { latency_ns: 2294, bandwidth_gib: 1024 }];
        assert_eq!(config.check(), Ok(()));
        for (latency_ns, bandwidth_gib) in [(98, 8), (2295, 8), (u32::MAX, 8), (200, 0), (200, 1025)] {
            config.domains = vec![Domain { latency_ns, bandwidth_gib }];
            assert_eq!(config.check(), Err(ConfigError::Domain(0)), "{latency_ns} ns, {bandwidth_gib} GiB/s");
        }
        config.domains = vec![Domain { latency_ns: 200, bandwidth_gib: 8 }; 2];
        assert_eq!(config.check(), Err(ConfigError::Domains));
    }
}
