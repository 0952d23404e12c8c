//! Checks a scenario's machine before anything starts: errors for what cannot work, warnings for what may not.

use std::{process::Command, sync::Arc};

use cxl_cram_kit::size::format_bytes;
use thiserror::Error;

use crate::machine::config::{ConfigError, MachineConfig};
use crate::machine::{config, end_of_memory};
use crate::rig::shape::{DeviceShape, MachineShape};
use crate::rig::stage;
use crate::rig::stage::Overrides;

/// Sizes of a page and of its `struct page` in Linux.
const PAGE: (u64, u64) = (4096, 64);
/// Below this much memory, x86 Linux always uses the smallest memory blocks.
const LARGE_MEMORY: u64 = 64 << 30;
/// The smallest and the largest memory block of x86 Linux.
const BLOCKS: (u64, u64) = (128 << 20, 2 << 30);
/// The kernel option that puts the `struct page`s of hot-added memory into that memory itself.
const MEMMAP_ON_MEMORY: &str = "memmap_on_memory";

/// Why a machine cannot be started.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// The device refuses its options.
    #[error("the device refuses its options: {0}")]
    Device(String),
    /// The machine is impossible.
    #[error(transparent)]
    Machine(#[from] ConfigError),
}

impl PreflightError {
    /// Whether a different host could run it.
    pub fn host_at_fault(&self) -> bool {
        matches!(self, Self::Machine(ConfigError::AddressSpace { .. }))
    }
}

/// Checks devices and their machine with the user's changes, and returns warnings.
///
/// # Errors
/// The device or QEMU would refuse to start.
pub fn preflight(
    devices: &[DeviceShape],
    shape: &MachineShape,
    overrides: &Overrides,
) -> Result<Vec<String>, PreflightError> {
    let mut machine = stage::machine(Arc::new(|| Command::new("qemu-system-x86_64")), shape, overrides);
    for device in devices {
        let capacity = device.options(&overrides.device_args).map_err(PreflightError::Device)?.capacity;
        machine.devices.push(config::Device { socket: "socket".into(), capacity });
    }
    machine.check()?;
    let memmap = overrides.append.split_whitespace().any(describes_itself).then(|| {
        format!(
            "{MEMMAP_ON_MEMORY} puts struct pages on the device; the guest's kernel does not survive poison in them"
        )
    });
    Ok([struct_pages(&machine), memory_blocks(&machine), memmap].into_iter().flatten().collect())
}

/// Warns if the guest's memory is too small for the struct pages of the capacity.
fn struct_pages(machine: &MachineConfig) -> Option<String> {
    let capacity: u64 = machine.devices.iter().map(|device| device.capacity).sum();
    let needed = capacity / PAGE.0 * PAGE.1;
    let enough = (needed * 2).next_multiple_of(1 << 30);
    (needed > machine.memory / 2).then(|| {
        format!(
            "the struct pages of {} take {} of the guest's memory of {}; use --memory {}G or more",
            format_bytes(capacity),
            format_bytes(needed),
            format_bytes(machine.memory),
            enough >> 30,
        )
    })
}

/// Warns if the capacity is not a whole number of memory blocks; the rest never comes online.
fn memory_blocks(machine: &MachineConfig) -> Option<String> {
    let block = memory_block(machine.memory);
    let device = machine.devices.iter().find(|device| !device.capacity.is_multiple_of(block))?;
    Some(format!(
        "a guest with {} of memory has memory blocks of {}: {} of the device's {} cannot come online; \
         the smallest useful capacity is {}",
        format_bytes(machine.memory),
        format_bytes(block),
        format_bytes(device.capacity % block),
        format_bytes(device.capacity),
        format_bytes(block),
    ))
}

/// The size of memory blocks by `probe_memory_block_size()` in arch/x86/mm/init_64.c for a virtual machine: with much memory,
/// the largest size to which the end of memory is aligned.
fn memory_block(memory: u64) -> u64 {
    let end = end_of_memory(memory);
    if end < LARGE_MEMORY { BLOCKS.0 } else { (1 << end.trailing_zeros()).clamp(BLOCKS.0, BLOCKS.1) }
}

/// Whether a word of the kernel's command line turns the option on.
fn describes_itself(word: &str) -> bool {
    let off = ["0", "n", "N", "off"];
    word.split_once('=')
        .is_some_and(|(name, value)| name.rsplit('.').next() == Some(MEMMAP_ON_MEMORY) && !off.contains(&value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::machine::config::Accel;

    fn check(capacity: u64, memory: u64, append: &str) -> Result<Vec<String>, PreflightError> {
        let device = DeviceShape { capacity, ..DeviceShape::USUAL };
        let overrides = Overrides {
            memory: Some(memory),
            accel: Some(Accel::Tcg),
            append: append.to_owned(),
            ..Overrides::default()
        };
        preflight(&[device], &MachineShape::USUAL, &overrides)
    }

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    #[test]
    fn a_default_machine_causes_no_warning() {
        assert_eq!(check(512 * MIB, GIB, "memory_hotplug.memmap_on_memory=0 quiet").unwrap(), [""; 0]);
        assert_eq!(check(32 * GIB, GIB, "").unwrap(), [""; 0], "half of the memory is for struct pages");
        assert_eq!(check(256 * MIB, 61 * GIB, "").unwrap(), [""; 0]);
    }

    #[test]
    fn options_that_the_device_or_qemu_would_refuse_are_errors() {
        assert!(check(100 * MIB, GIB, "").unwrap_err().to_string().contains("256 MiB"));
        assert!(check(512 * MIB, 0, "").unwrap_err().to_string().contains("at least 256 MiB"));
        let device_args = vec!["--bogus".to_owned()];
        let overrides = Overrides { device_args, ..Overrides::default() };
        let error = preflight(&[DeviceShape::USUAL], &MachineShape::USUAL, &overrides).unwrap_err();
        assert!(error.to_string().contains("unexpected argument '--bogus'") && !error.host_at_fault());
    }

    #[test]
    fn capacity_beyond_the_guests_addresses_is_refused_with_the_numbers() {
        let error = check(256 * GIB, 8 * GIB, "").unwrap_err();
        assert!(error.host_at_fault());
        assert!(error.to_string().contains("40 bits: the largest capacity is 261888 MiB"), "{error}");
        assert!(check(8 * TIB, 8 * GIB, "").is_err());
    }

    #[test]
    fn a_guest_too_small_for_the_struct_pages_causes_a_warning() {
        let warnings = check(64 * GIB, GIB, "").unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("take 1 GiB") && warnings[0].contains("--memory 2G"), "{warnings:?}");
    }

    #[test]
    fn a_region_smaller_than_a_memory_block_causes_a_warning() {
        let warnings = check(256 * MIB, 100 * GIB, "").unwrap();
        assert!(warnings[0].contains("256 MiB cannot come online"), "{warnings:?}");
        assert!(warnings[0].contains("smallest useful capacity is 2 GiB"), "{warnings:?}");
        assert!(check(3 * GIB, 62 * GIB, "").unwrap()[0].contains("1 GiB of the device's 3 GiB"));
        assert_eq!(check(4 * GIB, 100 * GIB, "").unwrap(), [""; 0]);
        // Memory that ends on an odd GiB has blocks of 1 GiB.
        assert_eq!(check(3 * GIB, 63 * GIB, "").unwrap(), [""; 0]);
    }

    #[test]
    fn struct_pages_on_the_device_cause_a_warning() {
        for append in ["memory_hotplug.memmap_on_memory=1", "quiet memory_hotplug.memmap_on_memory=force"] {
            assert!(check(512 * MIB, GIB, append).unwrap()[0].contains("poison"), "{append}");
        }
    }
}
