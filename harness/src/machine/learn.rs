//! What the firmware makes of a machine, learnt by booting only the firmware.
//! Where a BAR lies depends on the whole topology, and the CEDT that Linux needs must name that address before Linux
//! boots. So the machine is started once without a kernel: the monitor tells the BARs, and guest memory holds the
//! tables. It takes well under a second. The device sees a client come and go, which to it is a power cycle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use qapi::qmp;
use thiserror::Error;

use super::config::{ConfigError, MachineConfig};
use super::console::Watcher;
use super::health::Health;
use super::process::{Files, Process, ProcessError};
use super::qmp::{Monitor, QmpError};
use super::topology::{self, Sockets};
use crate::guest::acpi::srat::{self, MemoryAffinity};
use crate::guest::acpi::{self, AcpiError, Cedt, Root, Table, Window};

/// The device's BAR that is the HDM window.
const HDM_BAR: i64 = 2;
/// PCI vendor and device id of the memory device.
const DEVICE_ID: (i64, i64) = (0x8086, 0x0d93);
/// Between two looks at what the firmware has done.
const POLL: Duration = Duration::from_millis(5);
/// The most tables that the root table may list.
const MAX_TABLES: usize = 256;

/// Why nothing was learnt.
#[derive(Debug, Error)]
pub enum LearnError {
    /// The machine cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// QEMU did not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU's monitor did not do what it was asked.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The firmware did not finish.
    #[error("see why the firmware did not finish within {limit:?}: {missing}")]
    Unfinished {
        /// The limit.
        limit: Duration,
        /// What was missing to the end.
        missing: AcpiError,
    },
    /// A table of the firmware's is missing, or is none.
    #[error("see what the firmware made")]
    Acpi(#[from] AcpiError),
    /// A device has no window.
    #[error(
        "see why the firmware gave device {0} no window: BAR {HDM_BAR} of 8086:0d93 behind its port has no address"
    )]
    NoBar(usize),
    /// A window that Linux would nest the wrong way round.
    #[error("give device {device} a BAR {HDM_BAR} larger than its capacity of {capacity} bytes, not {bar} bytes")]
    Nesting {
        /// Which device.
        device: usize,
        /// Its capacity.
        capacity: u64,
        /// Its BAR's size.
        bar: u64,
    },
    /// There is no host bridge for the devices.
    #[error("see why the firmware's CEDT has no host bridge {0}")]
    NoBridge(u32),
    /// There is not one host bridge in a machine that was not made here.
    #[error("give the machine one pxb-cxl; its CEDT has {0} host bridges")]
    Bridges(usize),
    /// There is no device in a machine that was not made here.
    #[error("attach a served device to the machine: it has no function 8086:0d93 with a BAR2")]
    NoDevice,
    /// Guest memory could not be read.
    #[error("make the directory of the run readable and writable for QEMU")]
    Memory(#[source] io::Error),
}

/// A BAR as the firmware placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// What the firmware made.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// The HDM window of each device, in the machine's order.
    pub bars: Vec<Bar>,
    /// The CEDT.
    pub cedt: Table,
    /// The SRAT, where the machine has proximity domains.
    pub srat: Option<Table>,
}

impl Learnt {
    /// The tables to override the firmware's with: the CEDT, and the SRAT where windows have domains of their own.
    ///
    /// # Errors
    /// As [`Self::cedt_override`], or the firmware has made no SRAT.
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
        Ok(tables)
    }

    /// The CEDT that describes a window over each device's BAR, to override the firmware's with.
    ///
    /// # Errors
    /// The firmware's is none, lacks the host bridge, or a window would not lie within its BAR and be smaller.
    pub fn cedt_override(&self, config: &MachineConfig) -> Result<Table, LearnError> {
        let capacities = config.devices.iter().map(|device| device.capacity);
        self.windows(u32::from(topology::HOST_BRIDGE_BUS), capacities)
    }

    /// The same for a machine that is not made here: it has one CXL host bridge, and every device this capacity, or the
    /// largest that its BAR can hold.
    ///
    /// # Errors
    /// As [`Self::cedt_override`], or there is more than one host bridge.
    pub fn own_override(&self, capacity: Option<u64>) -> Result<Table, LearnError> {
        match Cedt::parse(&self.cedt)?.bridges.as_slice() {
            [bridge] => self.windows(bridge.uid, self.bars.iter().map(|bar| capacity.unwrap_or(bar.size / 2))),
            bridges => Err(LearnError::Bridges(bridges.len())),
        }
    }

    fn windows(&self, uid: u32, capacities: impl Iterator<Item = u64>) -> Result<Table, LearnError> {
        let mut cedt = Cedt::parse(&self.cedt)?;
        if !cedt.bridges.iter().any(|bridge| bridge.uid == uid) {
            return Err(LearnError::NoBridge(uid));
        }
        for (device, (bar, capacity)) in self.bars.iter().zip(capacities).enumerate() {
            // An equal one would take the BAR's place in the resource tree.
            if bar.size <= capacity {
                return Err(LearnError::Nesting { device, capacity, bar: bar.size });
            }
            cedt.windows.push(Window::volatile(bar.address, capacity, uid));
        }
        Ok(cedt.to_table(self.cedt.overriding()))
    }
}

/// Boots the firmware and asks. QEMU has ended when this comes back. Sockets are made in `directory`, logs in `logs`.
///
/// # Errors
/// The machine does not start, or its firmware does not finish within `limit`.
pub fn learn(config: &MachineConfig, directory: &Path, logs: &Path, limit: Duration) -> Result<Learnt, LearnError> {
    config.check()?;
    let sockets = Sockets::in_directory(directory);
    let mut command = (config.qemu)();
    command.args(topology::arguments(config, &sockets, None));
    ask(command, &sockets, directory, logs, limit, |buses| {
        (0..config.devices.len())
            .map(|index| {
                let port = topology::root_port(index);
                buses.iter().find_map(|bus| hdm_bar(&bus.devices, &port)).ok_or(LearnError::NoBar(index))
            })
            .collect()
    })
}

/// The same for a machine that is not made here: `command` starts it, whatever is in it. Its devices come in the order
/// of their buses.
///
/// # Errors
/// As [`learn`], or it has no device.
pub fn learn_own(mut command: Command, directory: &Path, logs: &Path, limit: Duration) -> Result<Learnt, LearnError> {
    let sockets = Sockets::in_directory(directory);
    command.args(topology::monitor(&sockets));
    ask(command, &sockets, directory, logs, limit, |buses| {
        let mut bars = Vec::new();
        buses.iter().for_each(|bus| hdm_bars(&bus.devices, &mut bars));
        if bars.is_empty() { Err(LearnError::NoDevice) } else { Ok(bars) }
    })
}

/// Starts a machine, waits for its firmware, asks, and ends it.
fn ask(
    command: Command,
    sockets: &Sockets,
    directory: &Path,
    logs: &Path,
    limit: Duration,
    bars: impl FnOnce(&[qmp::PciInfo]) -> Result<Vec<Bar>, LearnError>,
) -> Result<Learnt, LearnError> {
    let health = Health::default();
    let files = Files::in_directory(logs);
    let mut process = Process::start(command, &files, directory, Watcher::default(), None, &health)?;
    let end = Instant::now() + limit;
    let mut monitor = Monitor::connect(&sockets.qmp, &health, limit)?;
    let dump = directory.join("memory.dump");
    let cedt = loop {
        match find_table(b"CEDT", "CEDT", |address, length| read(&mut monitor, &dump, address, length)) {
            Ok(table) => break table,
            Err(FindError::Read(error)) => return Err(error),
            Err(FindError::Acpi(missing)) if Instant::now() >= end => {
                return Err(LearnError::Unfinished { limit, missing });
            }
            // The firmware is still at it.
            Err(FindError::Acpi(_)) => thread::sleep(POLL),
        }
    };
    // The root table lists all of them at once.
    let srat = match find_table(b"SRAT", "SRAT", |address, length| read(&mut monitor, &dump, address, length)) {
        Ok(table) => Some(table),
        Err(FindError::Acpi(_)) => None,
        Err(FindError::Read(error)) => return Err(error),
    };
    // Tables come after the BARs: what the monitor says now is the end of it.
    let bars = bars(&monitor.execute(&qmp::query_pci {})?)?;
    process.kill();
    Ok(Learnt { bars, cedt, srat })
}

/// The window of the memory device behind the root port of this name.
fn hdm_bar(devices: &[qmp::PciDeviceInfo], port: &str) -> Option<Bar> {
    devices.iter().find_map(|device| {
        let below = device.pci_bridge.as_ref()?.devices.as_deref()?;
        if device.qdev_id != port {
            return hdm_bar(below, port);
        }
        below.iter().find_map(window)
    })
}

/// The windows of all memory devices at or below these.
fn hdm_bars(devices: &[qmp::PciDeviceInfo], bars: &mut Vec<Bar>) {
    for device in devices {
        bars.extend(window(device));
        if let Some(below) = device.pci_bridge.as_ref().and_then(|bridge| bridge.devices.as_deref()) {
            hdm_bars(below, bars);
        }
    }
}

/// The window of a function, if it is a memory device.
fn window(function: &qmp::PciDeviceInfo) -> Option<Bar> {
    let id = (function.id.vendor, function.id.device);
    let region = function.regions.iter().find(|region| id == DEVICE_ID && region.bar == HDM_BAR)?;
    // The monitor says -1 for a BAR without an address.
    let address = u64::try_from(region.address).ok().filter(|&address| address != 0)?;
    Some(Bar { address, size: u64::try_from(region.size).ok()? })
}

/// Reads guest memory by way of a file.
fn read(monitor: &mut Monitor, dump: &PathBuf, address: u64, length: usize) -> Result<Vec<u8>, LearnError> {
    let filename = dump.to_string_lossy().into_owned();
    monitor.execute(&qmp::pmemsave { val: address, size: length as u64, filename })?;
    let bytes = fs::read(dump).map_err(LearnError::Memory)?;
    fs::remove_file(dump).map_err(LearnError::Memory)?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(LearnError::Memory(io::Error::other(format!("QEMU wrote {} bytes instead of {length}", bytes.len()))))
    }
}

#[derive(Debug)]
enum FindError<E> {
    Acpi(AcpiError),
    Read(E),
}

impl<E> From<AcpiError> for FindError<E> {
    fn from(error: AcpiError) -> Self {
        Self::Acpi(error)
    }
}

/// Follows the RSDP to the table with this signature.
fn find_table<E>(
    signature: &[u8; 4],
    name: &'static str,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Table, FindError<E>> {
    let root = {
        let area = acpi::RSDP_AREA;
        let length = (area.end - area.start) as usize;
        acpi::find_rsdp(&read(area.start, length).map_err(FindError::Read)?).ok_or(AcpiError::Missing("RSDP"))?
    };
    let mut table = |address: u64| -> Result<Table, FindError<E>> {
        let length = acpi::table_length(&read(address, acpi::HEADER).map_err(FindError::Read)?)?;
        Ok(Table::parse(&read(address, length).map_err(FindError::Read)?)?)
    };
    let (Root::Rsdt(address) | Root::Xsdt(address)) = root;
    for entry in acpi::root_entries(root, &table(address)?)?.into_iter().take(MAX_TABLES) {
        // A table that is damaged is not the one, unless it turns out to be missing.
        match table(entry) {
            Ok(table) if &table.header.signature == signature => return Ok(table),
            Ok(_) | Err(FindError::Acpi(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(AcpiError::Missing(name).into())
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
