//! What is where in BAR0: four blocks of registers.
//!
//! The device registers end with the mailbox's payload, the only part whose size can be chosen. Up to 32 KiB of payload all blocks
//! have 64 KiB, in the order component, device, MSI-X table, MSI-X pending bits. A larger payload moves the device registers
//! behind the others, into a block large enough, and BAR0 grows.

use std::ops::Range;

use super::mailbox::payload_size::PayloadSize;

/// The smallest block.
pub(super) const BLOCK_SIZE: u64 = 0x10000;
pub(super) const COMPONENT_REGISTERS: u32 = 0x00000;
const DEVICE_REGISTERS: u32 = 0x10000;
pub(super) const MSIX_TABLE: u32 = 0x20000;
pub(super) const MSIX_PBA: u32 = 0x30000;
/// Where the four blocks end if each has the smallest size.
const SMALL: u64 = 0x40000;

/// The place of the device registers, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar0 {
    device_registers: u32,
    block: u64,
}

impl Bar0 {
    /// The layout for a payload of this size.
    pub(super) fn new(payload: PayloadSize) -> Self {
        let needed = super::device_registers::MAILBOX + super::mailbox::size(payload);
        let block = needed.next_power_of_two().max(BLOCK_SIZE);
        // Aligned to its size, and a power of two: 4 MiB at most, for a payload of 1 MiB.
        let device_registers = if block == BLOCK_SIZE { DEVICE_REGISTERS } else { block.max(SMALL) as u32 };
        Self { device_registers, block }
    }

    /// Offset of the device registers.
    pub(super) fn device_registers(self) -> u32 {
        self.device_registers
    }

    /// The device registers.
    pub(super) fn device(self) -> Range<u64> {
        let start = u64::from(self.device_registers);
        start..start + self.block
    }

    /// BAR0's size in bytes, a power of two.
    pub(super) fn size(self) -> u64 {
        self.device().end.next_power_of_two().max(SMALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_registers_move_only_if_the_payload_does_not_fit_their_block() {
        let of = |bytes: u64| Bar0::new(PayloadSize::new(bytes).expect("a valid size"));
        for bytes in [2 << 10, 32 << 10] {
            assert_eq!((of(bytes).device(), of(bytes).size()), (0x10000..0x20000, 0x40000), "{bytes}");
        }
        assert_eq!((of(64 << 10).device(), of(64 << 10).size()), (0x40000..0x60000, 0x80000));
        assert_eq!((of(1 << 20).device(), of(1 << 20).size()), (0x20_0000..0x40_0000, 0x40_0000));
    }
}
