//! The machine, as a struct.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use thiserror::Error;

/// Windows and HDM capacity come in multiples of this, in bytes (CXL 3.1 section 9.18.1.3).
pub const WINDOW_UNIT: u64 = 256 << 20;
/// The most devices: each has a root port on the one CXL host bridge.
pub const MAX_DEVICES: usize = 8;
/// Memory comes in multiples of this, in bytes.
pub const MEMORY_UNIT: u64 = 1 << 20;

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

impl Accel {
    /// KVM where the processor says `vmx` or `svm` and `/dev/kvm` opens. The flags matter: there are machines whose
    /// `/dev/kvm` opens but cannot run an ordinary kernel.
    pub fn choose() -> Self {
        let opens = || OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        if processor_can_virtualize() && opens() { Self::Kvm } else { Self::Tcg }
    }
}

/// Whether the processor says `vmx` or `svm`.
pub fn processor_can_virtualize() -> bool {
    has_virtualization(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.flat_map(|(_, flags)| flags.split_whitespace()).any(|flag| flag == "vmx" || flag == "svm")
}

/// Makes a command that has all it takes to start QEMU but the machine's arguments.
pub type QemuCommand = Arc<dyn Fn() -> Command + Send + Sync>;

/// A vfio-user device to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its socket.
    pub socket: PathBuf,
    /// Its HDM capacity in bytes, a multiple of [`WINDOW_UNIT`]: the size of its window.
    pub capacity: u64,
}

/// What the firmware says of a window that has a proximity domain of its own, as node 0 sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Access latency, nanoseconds.
    pub latency_ns: u32,
    /// Access bandwidth, GiB a second.
    pub bandwidth_gib: u32,
}

impl Domain {
    /// Access latency of node 0's own memory, nanoseconds.
    pub const LOCAL_LATENCY_NS: u32 = 90;

    /// The distance from node 0, which stands in the SLIT: 10 is node 0's own, and the rest goes by latency. None where a
    /// table could not say it: a distance is 11 to 254.
    pub fn distance(self) -> Option<u8> {
        let distance = u64::from(self.latency_ns) * 10 / u64::from(Self::LOCAL_LATENCY_NS);
        u8::try_from(distance).ok().filter(|distance| (11..=254).contains(distance))
    }
}

/// A drive, as `/dev/vda` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// A raw image.
    pub image: PathBuf,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// The machine. The same one, but for the kernel, makes the firmware-only boot and the real one: what the firmware
/// chooses depends on all of it.
#[derive(Clone)]
pub struct MachineConfig {
    /// Starts QEMU, version 10.1 or later.
    pub qemu: QemuCommand,
    /// How to execute.
    pub accel: Accel,
    /// Memory of node 0, in bytes, a multiple of [`MEMORY_UNIT`].
    pub memory: u64,
    /// Processors.
    pub processors: u32,
    /// Each behind a root port of its own, in this order.
    pub devices: Vec<Device>,
    /// The proximity domains of the first devices' windows, described by SRAT, HMAT and SLIT. With one, the way to the
    /// host bridge is not described: Linux takes what it and CDAT come to over what HMAT says of the window.
    pub domains: Vec<Domain>,
    /// Drives, in this order.
    pub drives: Vec<Drive>,
    /// Let the guest restart. Otherwise a restart, and so a panic, ends QEMU.
    pub restarts: bool,
    /// Whether machine checks will be raised, as Intel's processors report them.
    pub machine_checks: bool,
    /// Further arguments for QEMU, after all others.
    pub extra: Vec<OsString>,
}

/// Why a machine cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A capacity that makes no window.
    #[error("give device {0} a capacity that is a multiple of 256 MiB and not zero")]
    Capacity(usize),
    /// Too many devices, or none.
    #[error("attach 1 to {MAX_DEVICES} devices")]
    Devices,
    /// Memory that QEMU would not take.
    #[error("give the guest a multiple of 1 MiB, at least 256 MiB")]
    Memory,
    /// No processor.
    #[error("give the guest 1 to 255 processors")]
    Processors,
    /// Domains that belong to no device.
    #[error("give no more domains than there are devices")]
    Domains,
    /// A domain that the tables cannot describe.
    #[error("give the domain of window {0} a latency of 100 to 2294 ns and a bandwidth of 1 to 1024 GiB/s")]
    Domain(usize),
    /// A path that QEMU's option syntax or JSON cannot hold.
    #[error("use a path of UTF-8 for {0:?}")]
    Path(PathBuf),
}

impl MachineConfig {
    /// One gibibyte, two processors, nothing attached.
    pub fn new(qemu: QemuCommand) -> Self {
        Self {
            qemu,
            accel: Accel::choose(),
            memory: 1 << 30,
            processors: 2,
            devices: Vec::new(),
            domains: Vec::new(),
            drives: Vec::new(),
            restarts: false,
            machine_checks: false,
            extra: Vec::new(),
        }
    }

    /// Checks what QEMU would refuse less clearly.
    ///
    /// # Errors
    /// The first thing that cannot be.
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
        if self.domains.len() > self.devices.len() {
            return Err(ConfigError::Domains);
        }
        let bad = |domain: &Domain| domain.distance().is_none() || !(1..=1024).contains(&domain.bandwidth_gib);
        if let Some(index) = self.domains.iter().position(bad) {
            return Err(ConfigError::Domain(index));
        }
        let sockets = self.devices.iter().map(|device| &device.socket);
        let mut paths = sockets.chain(self.drives.iter().map(|drive| &drive.image));
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
            .field("drives", &self.drives)
            .field("restarts", &self.restarts)
            .field("machine_checks", &self.machine_checks)
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_whole_flag_of_the_processor() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags : svm"));
        assert!(!has_virtualization("flags\t: fpu vmxoff\nvmx flags\t: vnmi\nbugs : svm"));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn a_machine_that_cannot_be_is_refused() {
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
