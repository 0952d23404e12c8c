//! Checks whether the devices' windows fit into a guest's physical address space.

use std::ops::Range;

use cxl_cram_device::cxl::config_space::bar2_size;

use super::config::{Accel, MachineConfig, WINDOW_UNIT};
use super::kvm;

/// Bits of a physical address of the processor that TCG emulates.
const TCG_BITS: u32 = 40;
/// The firmware uses no more bits than this, whatever the processor has.
const MOST_BITS: u32 = 46;
/// AMD processors with at least this many bits reserve this range for HyperTransport.
const HYPERTRANSPORT: Range<i128> = 0xfd_0000_0000..0x100_0000_0000;
const HYPERTRANSPORT_BITS: u32 = 40;
/// From this much memory on, QEMU splits it: [`BELOW`] stays below 4 GiB, the rest starts at [`ABOVE`].
const SPLIT: u64 = 0xb000_0000;
const BELOW: u64 = 2 << 30;
const ABOVE: u64 = 4 << 30;
/// The firmware rounds the small BARs of all functions up to this: one unit before the windows and one after. If those
/// after end up beyond the last address, Linux moves them.
const UNIT: i128 = 1 << 30;
/// With memory above 4 GiB, the firmware takes this part of the address space for BARs, or a multiple of it.
const PADDED: i128 = 8;

/// The address space of a machine, as its firmware uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressSpace {
    /// Bits of a physical address.
    pub(super) bits: u32,
    /// Whether the guest sees an AMD processor.
    amd: bool,
    /// Bytes of memory.
    memory: u64,
}

impl AddressSpace {
    /// The address space of a machine, or `None` if the host does not report its processor's address size.
    pub(super) fn of(config: &MachineConfig) -> Option<Self> {
        let (bits, amd) = match config.accel {
            Accel::Tcg => (TCG_BITS, true),
            Accel::Kvm => {
                let cpuinfo = kvm::cpuinfo();
                let amd = ["AuthenticAMD", "HygonGenuine"].iter().any(|vendor| cpuinfo.contains(vendor));
                (physical_bits(&cpuinfo)?.min(MOST_BITS), amd)
            }
        };
        // With machine checks, QEMU presents an Intel processor.
        Some(Self { bits, amd: amd && !config.machine_checks, memory: config.memory })
    }

    /// Whether the firmware (SeaBIOS, as shipped with QEMU 10.1 and later) finds room for windows of these capacities.
    ///
    /// SeaBIOS takes what all BARs need from the end of the address space, or, if that overlaps a reserved range, the
    /// same amount below that. The windows come first, aligned to the largest one's size. It distrusts an Intel processor
    /// with as many bits as QEMU's default one, and then starts where memory ends.
    pub(super) fn holds(self, capacities: &[u64]) -> bool {
        let windows = || capacities.iter().map(|capacity| i128::from(bar2_size(*capacity)));
        let (sum, largest) = (windows().sum::<i128>(), windows().max().unwrap_or(1));
        let (top, memory) = (1_i128 << self.bits, i128::from(end_of_memory(self.memory).max(ABOVE)));
        let mut size = UNIT + up(sum + 1, UNIT);
        if self.memory >= SPLIT {
            size = up(size, top / PADDED);
        }
        let mut base = memory;
        if self.amd || self.bits != TCG_BITS {
            base = base.max(top - size);
        }
        let reserved = self.amd && self.bits >= HYPERTRANSPORT_BITS;
        if reserved && base < HYPERTRANSPORT.end && base + size > HYPERTRANSPORT.start {
            base -= size;
        }
        base >= memory && up(base + 1, largest) + sum <= top
    }

    /// The largest capacity, in bytes, that fits once for each device, or `None` if not even the smallest does.
    pub(super) fn largest(self, devices: usize) -> Option<u64> {
        let below_window = |shift: u32| (1_u64 << shift) - WINDOW_UNIT;
        let smallest = WINDOW_UNIT.ilog2() + 1;
        (smallest..=self.bits).rev().map(below_window).find(|capacity| self.holds(&vec![*capacity; devices]))
    }
}

/// Parses a line such as `address sizes : 46 bits physical, 48 bits virtual`.
fn physical_bits(cpuinfo: &str) -> Option<u32> {
    let sizes = cpuinfo.lines().find_map(|line| line.strip_prefix("address sizes")?.split_once(':'))?.1;
    sizes.split_once(" bits physical")?.0.trim().parse().ok()
}

/// The first address after a guest's memory.
pub(crate) fn end_of_memory(memory: u64) -> u64 {
    if memory < SPLIT { memory } else { ABOVE.saturating_add(memory - BELOW) }
}

/// Rounds up to a multiple.
fn up(value: i128, of: i128) -> i128 {
    (value + of - 1).div_euclid(of) * of
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn tcg(memory: u64) -> AddressSpace {
        AddressSpace { bits: TCG_BITS, amd: true, memory }
    }

    #[test]
    fn windows_fit_as_seabios_places_them() {
        // Measured with SeaBIOS in QEMU 11.1.
        assert!(tcg(GIB).holds(&[256 * GIB - WINDOW_UNIT]));
        assert!(!tcg(GIB).holds(&[256 * GIB]));
        assert!(!tcg(GIB).holds(&[256 * GIB - WINDOW_UNIT; 2]));
        assert!(tcg(4 * GIB).holds(&[128 * GIB - WINDOW_UNIT; 2]));
        assert!(!tcg(GIB).holds(&[1 << 40]));
        assert!(!tcg(GIB).holds(&[8 << 40]));
        assert!(!tcg(600 * GIB).holds(&[255 * GIB]), "memory is in the way");
        let intel = |bits, memory| AddressSpace { bits, amd: false, memory };
        assert!(intel(TCG_BITS, GIB).holds(&[4 * GIB]) && intel(TCG_BITS, GIB).holds(&[256 * GIB]));
        assert!(!intel(TCG_BITS, GIB).holds(&[512 * GIB]));
        assert!(intel(46, 4 * GIB).holds(&[8 << 40]));
    }

    #[test]
    fn the_largest_capacity_is_one_unit_below_a_window() {
        assert_eq!(tcg(GIB).largest(1), Some(256 * GIB - WINDOW_UNIT));
        assert_eq!(tcg(GIB).largest(8), Some(32 * GIB - WINDOW_UNIT));
        assert_eq!(AddressSpace { bits: 36, amd: false, memory: 62 * GIB }.largest(1), None);
    }

    #[test]
    fn memory_beyond_three_gibibytes_goes_on_above_four() {
        assert_eq!(end_of_memory(2 * GIB), 2 * GIB);
        assert_eq!(end_of_memory(3 * GIB), 5 * GIB);
    }

    #[test]
    fn the_address_size_is_read_from_cpuinfo() {
        let text = "cache_alignment\t: 64\naddress sizes\t: 46 bits physical, 48 bits virtual\n";
        assert_eq!(physical_bits(text), Some(46));
        assert_eq!(physical_bits("address sizes : many"), None);
        assert_eq!(physical_bits(""), None);
    }
}
