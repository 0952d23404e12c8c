//! Learns a machine's BAR addresses and ACPI tables by booting only the firmware.
//!
//! A BAR's address depends on the whole topology, and the CEDT must name it before Linux boots. So the machine starts once
//! without a kernel: the monitor reports the BARs, and guest memory holds the tables. This takes well under a second. To
//! the device, it is a power cycle.

mod tables;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cxl_cram_device::cxl::config_space::{COMPRESSED_MEMORY, INTEL};
use cxl_cram_kit::size::format_bytes;
use qapi::qmp;
use thiserror::Error;

use super::config::{ConfigError, MachineConfig};
use super::console::Watcher;
use super::decoders::{Decoders, Endpoint, Programmed, Structure};
use super::dvsec;
use super::process::{Files, Needs, Process, ProcessError};
use super::qmp::{Monitor, QmpError};
use super::topology;
use super::topology::Sockets;
use crate::guest::acpi;
use crate::guest::acpi::srat;
use crate::guest::acpi::srat::MemoryAffinity;
use crate::guest::acpi::{AcpiError, Cedt, HostBridge, Root, Table, Window, dsdt, mcfg, ssdt};
use crate::health::Health;
use tables::{FindError, find_below, find_table, search};

/// The number of the device's HDM window BAR.
const HDM_BAR: i64 = 2;
/// PCI vendor and device id of the memory device.
const DEVICE_ID: (i64, i64) = (INTEL as i64, COMPRESSED_MEMORY as i64);
/// How often to check for the firmware's tables.
const POLL: Duration = Duration::from_millis(5);
/// The same while UEFI firmware runs, whose tables must be searched for.
const POLL_UEFI: Duration = Duration::from_millis(200);
/// From this much memory on, QEMU puts only [`LOW`] of it below 4 GiB.
const SPLIT: u64 = 0xb000_0000;
const LOW: u64 = 2 << 30;
/// OVMF's GUID (96b582de-1fb2-45f7-baea-a366c55a082d), 48 bytes before the end of its flash, which ends at 4 GiB. QEMU
/// detects OVMF by it too.
const OVMF: [u8; 16] = [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
const OVMF_AT: u64 = (1 << 32) - 48;

/// An error of the firmware-only boot.
#[derive(Debug, Error)]
pub enum LearnError {
    /// The machine's configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A monitor command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The firmware did not finish.
    #[error("the firmware did not finish within {} s: {missing}", limit.as_secs_f64().round())]
    Unfinished {
        /// The limit.
        limit: Duration,
        /// What was still missing.
        missing: AcpiError,
    },
    /// A firmware table is missing or invalid.
    #[error("the firmware's tables are invalid")]
    Acpi(#[from] AcpiError),
    /// The firmware placed no window for a device.
    #[error(
        "the firmware gave device {0} no window: its BAR{HDM_BAR} does not fit the guest's address space; use a smaller capacity"
    )]
    NoBar(usize),
    /// A window that is not smaller than its BAR: Linux would nest the BAR in the window.
    #[error("the capacity given for device {device}, {}, exceeds its BAR{HDM_BAR} of {}; use the value given to serve", format_bytes(*capacity), format_bytes(*bar))]
    Nesting {
        /// The device's index.
        device: usize,
        /// The capacity given, bytes.
        capacity: u64,
        /// The BAR's size, bytes.
        bar: u64,
    },
    /// The devices' host bridge is missing.
    #[error("the firmware's CEDT has no host bridge {0}")]
    NoBridge(u32),
    /// A user's machine with none or several host bridges.
    #[error("the machine must have one pxb-cxl, but its CEDT has {0} host bridges")]
    Bridges(usize),
    /// A user's machine without a device.
    #[error("the machine has no device 8086:0d93; attach a served one as vfio-user-pci")]
    NoDevice,
    /// The numbers of capacities and devices differ.
    #[error(
        "the machine has {devices} devices, but the number of --capacity options is {given}; give one for each device, in \
         bus order, or none to use all of each"
    )]
    Capacities {
        /// The number of devices.
        devices: usize,
        /// The number of capacities given.
        given: usize,
    },
    /// A capacity given that exceeds the device's.
    #[error("--capacity {} exceeds device {device}'s {}; leave it out to use all of it", format_bytes(*.given), format_bytes(*.has))]
    Capacity {
        /// The device's index.
        device: usize,
        /// The capacity given, bytes.
        given: u64,
        /// The device's capacity, bytes.
        has: u64,
    },
    /// Firmware that is to commit decoders, and a host bridge or device without any.
    #[error(
        "the decoders cannot be committed: {0}; give pxb-cxl the option hdm_for_passthrough=on, and the machine no more \
         devices than its host bridge has decoders"
    )]
    Decoders(&'static str),
    /// A device that does not report its capacity.
    #[error("device {0} has no CXL DVSEC that states its capacity; give it with --capacity")]
    NoCapacity(usize),
    /// Guest memory cannot be read.
    #[error("cannot read guest memory through a file that QEMU writes")]
    Memory(#[source] io::Error),
}

/// A BAR placed by the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// The firmware's BARs and tables.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The HDM window BAR of each device, in the machine's order.
    pub bars: Vec<Bar>,
    /// The CEDT.
    pub cedt: Table,
    /// The SRAT, if the machine has proximity domains.
    pub srat: Option<Table>,
    /// The DSDT, if the firmware is to commit decoders.
    pub dsdt: Option<Table>,
    /// The registers of the decoders, if the firmware is to commit them.
    pub programmed: Option<Programmed>,
}

/// A memory device of a user's own machine.
#[derive(Clone, Copy, Debug)]
pub struct UserDevice {
    /// The HDM window BAR.
    pub bar: Bar,
    /// The HDM capacity that the device reports, bytes.
    pub capacity: Option<u64>,
}

impl Learned {
    /// The tables that override the firmware's: the CEDT, and the SRAT if windows have their own domains.
    ///
    /// # Errors
    /// As [`Self::cedt_override`], or the firmware's SRAT is missing.
    pub fn overrides(&self, config: &MachineConfig) -> Result<Vec<Table>, LearnError> {
        let mut tables = vec![self.cedt_override(config)?];
        if !config.domains.is_empty() {
            let windows = (1..).zip(self.bars.iter().zip(&config.devices)).take(config.domains.len());
            let ranges: Vec<_> = windows
                .map(|(domain, (bar, device))| MemoryAffinity { domain, base: bar.address, size: device.capacity })
                .collect();
            let srat = self.srat.as_ref().ok_or(AcpiError::Missing("SRAT"))?;
            tables.push(srat::with_hot_pluggable(srat, &ranges)?);
        }
        let capacities: Vec<_> = config.devices.iter().map(|device| device.capacity).collect();
        tables.extend(self.firmware(&capacities, config.decoders)?);
        Ok(tables)
    }

    /// The tables that commit decoders for windows of these capacities, if any are to be committed.
    fn firmware(&self, capacities: &[u64], decoders: Decoders) -> Result<Vec<Table>, LearnError> {
        let Some(programmed) = &self.programmed else { return Ok(Vec::new()) };
        let windows: Vec<_> = self.bars.iter().zip(capacities).map(|(bar, &size)| Bar { size, ..*bar }).collect();
        let writes = programmed.commit(&windows, decoders == Decoders::Locked);
        let dsdt = self.dsdt.as_ref().ok_or(AcpiError::Missing("DSDT"))?;
        Ok(dsdt::with_wide_integers(dsdt).into_iter().chain([ssdt::that_writes(&writes)]).collect())
    }

    /// A CEDT that overrides the firmware's and describes a window over each device's BAR.
    ///
    /// # Errors
    /// The firmware's CEDT is invalid or lacks the host bridge, or a window would not be smaller than its BAR.
    pub fn cedt_override(&self, config: &MachineConfig) -> Result<Table, LearnError> {
        let capacities = config.devices.iter().map(|device| device.capacity);
        self.windows(u32::from(topology::HOST_BRIDGE_BUS), capacities)
    }

    /// Like [`Self::overrides`] for a user's own machine, with windows of these capacities.
    ///
    /// # Errors
    /// As [`Self::cedt_override`], or the machine does not have exactly one CXL host bridge.
    pub fn own_overrides(&self, capacities: &[u64], decoders: Decoders) -> Result<Vec<Table>, LearnError> {
        let bridge = only_bridge(&self.cedt)?;
        let cedt = self.windows(bridge.uid, capacities.iter().copied())?;
        Ok([cedt].into_iter().chain(self.firmware(capacities, decoders)?).collect())
    }

    fn windows(&self, uid: u32, capacities: impl Iterator<Item = u64>) -> Result<Table, LearnError> {
        let mut cedt = Cedt::parse(&self.cedt)?;
        if !cedt.bridges.iter().any(|bridge| bridge.uid == uid) {
            return Err(LearnError::NoBridge(uid));
        }
        for (device, (bar, capacity)) in self.bars.iter().zip(capacities).enumerate() {
            // A window as large as its BAR would take the BAR's place in Linux's resource tree.
            if bar.size <= capacity {
                return Err(LearnError::Nesting { device, capacity, bar: bar.size });
            }
            cedt.windows.push(Window::volatile(bar.address, capacity, uid));
        }
        Ok(cedt.to_table(self.cedt.overriding()))
    }
}

/// The one host bridge of a CEDT.
fn only_bridge(cedt: &Table) -> Result<HostBridge, LearnError> {
    match Cedt::parse(cedt)?.bridges.as_slice() {
        [bridge] => Ok(*bridge),
        bridges => Err(LearnError::Bridges(bridges.len())),
    }
}

/// Boots the firmware and reads its results. QEMU has exited when this returns. Sockets go to `directory`, logs to `logs`.
///
/// # Errors
/// The machine does not start, its firmware does not finish within `limit`, or a device has no window.
pub fn learn(config: &MachineConfig, directory: &Path, logs: &Path, limit: Duration) -> Result<Learned, LearnError> {
    config.check()?;
    let sockets = Sockets::in_directory(directory);
    let mut command = (config.qemu)();
    command.args(topology::arguments(config, &sockets, None));
    let needs = Needs { folder: directory, devices: &config.devices, drives: &config.drives };
    ask(command, &sockets, needs, logs, limit, |firmware| {
        let mut found = firmware.functions()?;
        let functions: Vec<_> = (0..config.devices.len())
            .map(|index| {
                let port = topology::root_port(index);
                let at = found.iter().position(|function| function.port.qdev_id == port);
                at.map(|at| found.swap_remove(at)).ok_or(LearnError::NoBar(index))
            })
            .collect::<Result<_, _>>()?;
        firmware.learned(&functions, config.decoders)
    })
}

/// Like [`learn`] for a user's own machine, which `command` starts. The devices are in bus order.
///
/// # Errors
/// As [`learn`], or the machine has no device.
pub fn learn_own(
    mut command: Command,
    decoders: Decoders,
    directory: &Path,
    logs: &Path,
    limit: Duration,
) -> Result<(Learned, Vec<UserDevice>), LearnError> {
    let sockets = Sockets::in_directory(directory);
    command.args(topology::monitor(&sockets));
    ask(command, &sockets, Needs::folder(directory), logs, limit, |firmware| {
        let functions = firmware.functions()?;
        if functions.is_empty() {
            return Err(LearnError::NoDevice);
        }
        let learned = firmware.learned(&functions, decoders)?;
        let mcfg = firmware.table(b"MCFG", "MCFG")?;
        let own = functions.iter().zip(&learned.bars).map(|(Function { function, .. }, &bar)| {
            let space = firmware.config_space(&mcfg, function)?;
            Ok(UserDevice { bar, capacity: dvsec::hdm_capacity(&space).filter(|&capacity| capacity != 0) })
        });
        let own = own.collect::<Result<_, LearnError>>()?;
        Ok((learned, own))
    })
}

/// The capacities of the windows over these devices: the ones given, or the ones that the devices report.
///
/// # Errors
/// The numbers of capacities and devices differ, a capacity exceeds its device's, or a device reports none.
pub fn own_capacities(own: &[UserDevice], given: &[u64]) -> Result<Vec<u64>, LearnError> {
    if !given.is_empty() && given.len() != own.len() {
        return Err(LearnError::Capacities { devices: own.len(), given: given.len() });
    }
    let capacity = |(device, own): (usize, &UserDevice)| match (given.get(device).copied(), own.capacity) {
        (Some(given), Some(has)) if given > has => Err(LearnError::Capacity { device, given, has }),
        (Some(given), _) => Ok(given),
        (None, Some(has)) => Ok(has),
        (None, None) => Err(LearnError::NoCapacity(device)),
    };
    own.iter().enumerate().map(|(device, own)| capacity((device, own))).collect()
}

/// Starts a machine, waits for its firmware, runs `questions` and ends the machine.
fn ask<T>(
    command: Command,
    sockets: &Sockets,
    needs: Needs<'_>,
    logs: &Path,
    limit: Duration,
    questions: impl FnOnce(&mut Firmware) -> Result<T, LearnError>,
) -> Result<T, LearnError> {
    let health = Health::default();
    let files = Files::in_directory(logs);
    let mut process = Process::start(command, &files, needs, Watcher::default(), None, &health)?;
    let end = Instant::now() + limit;
    let monitor = Monitor::connect(&sockets.qmp, &health, limit)?;
    let mut firmware = Firmware { monitor, dump: needs.folder.join("memory.dump"), root: None, uefi: false };
    let answers = firmware.wait(end, limit).and_then(|()| questions(&mut firmware));
    // The command may be a script. Killing it would leave its child, QEMU, running.
    let _: Result<_, QmpError> = firmware.monitor.execute(&qmp::quit {});
    process.kill();
    answers
}

/// A machine that runs its firmware.
struct Firmware {
    monitor: Monitor,
    /// The file through which guest memory is read.
    dump: PathBuf,
    /// Whether it is UEFI.
    uefi: bool,
    /// The root of UEFI firmware's tables, once found.
    root: Option<Root>,
}

impl Firmware {
    /// Waits for the tables. The firmware writes them after placing the BARs.
    fn wait(&mut self, end: Instant, limit: Duration) -> Result<(), LearnError> {
        self.uefi = self.read(OVMF_AT, OVMF.len())? == OVMF;
        loop {
            match self.find(b"CEDT", "CEDT") {
                Ok(_) => return Ok(()),
                Err(FindError::Read(error)) => return Err(error),
                Err(FindError::Acpi(missing)) if Instant::now() >= end => {
                    return Err(LearnError::Unfinished { limit, missing });
                }
                // The firmware is not done yet.
                Err(FindError::Acpi(_)) => thread::sleep(if self.uefi { POLL_UEFI } else { POLL }),
            }
        }
    }

    /// The memory devices, in bus order.
    fn functions(&mut self) -> Result<Vec<Function>, LearnError> {
        let mut functions = Vec::new();
        for bus in self.monitor.execute(&qmp::query_pci {})? {
            functions_below(None, bus.devices, &mut functions);
        }
        Ok(functions)
    }

    fn learned(&mut self, functions: &[Function], decoders: Decoders) -> Result<Learned, LearnError> {
        let srat = match self.find(b"SRAT", "SRAT") {
            Ok(table) => Some(table),
            Err(FindError::Acpi(_)) => None,
            Err(FindError::Read(error)) => return Err(error),
        };
        let bar =
            |(index, function): (usize, &Function)| bar(&function.function, HDM_BAR).ok_or(LearnError::NoBar(index));
        let bars = functions.iter().enumerate().map(bar).collect::<Result<_, _>>()?;
        let cedt = self.table(b"CEDT", "CEDT")?;
        let (dsdt, programmed) = match decoders {
            Decoders::Open => (None, None),
            Decoders::Committed | Decoders::Locked => (Some(self.dsdt()?), Some(self.programmed(&cedt, functions)?)),
        };
        Ok(Learned { bars, cedt, srat, dsdt, programmed })
    }

    fn dsdt(&mut self) -> Result<Table, LearnError> {
        let address = dsdt::address(&self.table(b"FACP", "FACP")?)?;
        let length = acpi::table_length(&self.read(address, acpi::HEADER)?)?;
        Ok(Table::parse(&self.read(address, length)?)?)
    }

    /// Finds the registers of the decoders of the host bridge and of these devices.
    fn programmed(&mut self, cedt: &Table, functions: &[Function]) -> Result<Programmed, LearnError> {
        let bridge = Structure::find(only_bridge(cedt)?.base, |address| self.read32(address))?
            .filter(|bridge| bridge.count >= functions.len())
            .ok_or(LearnError::Decoders("the host bridge has none, or too few"))?;
        let mcfg = self.table(b"MCFG", "MCFG")?;
        let endpoint = |Function { port, function }: &Function| {
            let space = self.config_space(&mcfg, function)?;
            let (control, enabled) = dvsec::control(&space).ok_or(LearnError::Decoders("a device has no CXL DVSEC"))?;
            let registers = dvsec::component_registers(&space)
                .and_then(|(number, offset)| bar(function, number.into())?.address.checked_add(offset));
            let registers = registers.ok_or(LearnError::Decoders("a device has no component registers"))?;
            let decoders = Structure::find(registers, |address| self.read32(address))?;
            let space = self.config_space(&mcfg, port)?;
            Ok(Endpoint {
                decoders: decoders.ok_or(LearnError::Decoders("a device has none"))?,
                control: (self.config_address(&mcfg, function)?.wrapping_add(control), enabled),
                port: dvsec::port_number(&space).ok_or(LearnError::Decoders("a root port has no number"))?,
            })
        };
        let endpoints = functions.iter().map(endpoint).collect::<Result<_, LearnError>>()?;
        Ok(Programmed { bridge, endpoints })
    }

    fn table(&mut self, signature: &[u8; 4], name: &'static str) -> Result<Table, LearnError> {
        self.find(signature, name).map_err(|error| match error {
            FindError::Acpi(error) => error.into(),
            FindError::Read(error) => error,
        })
    }

    fn find(&mut self, signature: &[u8; 4], name: &'static str) -> Result<Table, FindError<LearnError>> {
        if !self.uefi {
            return find_table(signature, name, |address, length| self.read(address, length));
        }
        let root = match self.root {
            Some(root) => root,
            None => {
                let memory = self.low_memory().map_err(FindError::Read)?;
                let root = search(0..memory, b"CEDT", "CEDT", |address, length| self.read(address, length))?;
                *self.root.insert(root)
            }
        };
        find_below(root, signature, name, |address, length| self.read(address, length))
    }

    /// Bytes of memory below 4 GiB.
    fn low_memory(&mut self) -> Result<u64, LearnError> {
        let memory = self.monitor.execute(&qmp::query_memory_size_summary {})?.base_memory;
        Ok(if memory < SPLIT { memory } else { LOW })
    }

    /// The address of a function's memory-mapped configuration space (ECAM).
    fn config_address(&mut self, mcfg: &Table, function: &qmp::PciDeviceInfo) -> Result<u64, LearnError> {
        let number = |number: i64| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(mcfg::config_space(mcfg, number(function.bus), number(function.slot), number(function.function))?)
    }

    /// Reads a function's configuration space.
    fn config_space(&mut self, mcfg: &Table, function: &qmp::PciDeviceInfo) -> Result<Vec<u8>, LearnError> {
        let at = self.config_address(mcfg, function)?;
        self.read(at, dvsec::CONFIG_SPACE)
    }

    /// Reads a register. QEMU's host bridge answers no wider reads.
    fn read32(&mut self, address: u64) -> Result<u32, LearnError> {
        let bytes = self.read(address, 4)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
    }

    /// Reads guest memory through a file.
    fn read(&mut self, address: u64, length: usize) -> Result<Vec<u8>, LearnError> {
        let filename = self.dump.to_string_lossy().into_owned();
        self.monitor.execute(&qmp::pmemsave { val: address, size: length as u64, filename })?;
        let bytes = fs::read(&self.dump).map_err(LearnError::Memory)?;
        fs::remove_file(&self.dump).map_err(LearnError::Memory)?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(LearnError::Memory(io::Error::other(format!("QEMU wrote {} bytes instead of {length}", bytes.len()))))
        }
    }
}

/// A memory device and the port above it.
struct Function {
    port: qmp::PciDeviceInfo,
    function: qmp::PciDeviceInfo,
}

/// All memory devices below ports, at or below these functions.
fn functions_below(port: Option<&qmp::PciDeviceInfo>, devices: Vec<qmp::PciDeviceInfo>, found: &mut Vec<Function>) {
    for mut device in devices {
        let below = device.pci_bridge.as_mut().and_then(|bridge| bridge.devices.take());
        functions_below(Some(&device), below.unwrap_or_default(), found);
        if let Some(port) = port
            && (device.id.vendor, device.id.device) == DEVICE_ID
        {
            found.push(Function { port: port.clone(), function: device });
        }
    }
}

/// A BAR of a function that has an address.
fn bar(function: &qmp::PciDeviceInfo, number: i64) -> Option<Bar> {
    let region = function.regions.iter().find(|region| region.bar == number)?;
    // The monitor reports -1 for a BAR without an address.
    let address = u64::try_from(region.address).ok().filter(|&address| address != 0)?;
    Some(Bar { address, size: u64::try_from(region.size).ok()? })
}

#[cfg(test)]
mod tests;
