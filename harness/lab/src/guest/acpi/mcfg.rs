//! Parses the MCFG: the addresses of PCI configuration space (PCI Firmware Specification 3.3, section 4.1.2).

use super::{AcpiError, Table, field};

/// Reserved bytes before the first allocation, and bytes in one.
const RESERVED: usize = 8;
const ALLOCATION: usize = 16;

/// The address of a function's configuration space in segment 0.
///
/// # Errors
/// The table is not an MCFG, or none of its allocations covers the bus.
pub fn config_space(mcfg: &Table, bus: u8, slot: u8, function: u8) -> Result<u64, AcpiError> {
    if &mcfg.header.signature != b"MCFG" {
        return Err(AcpiError::Signature("MCFG"));
    }
    let allocations = mcfg.body.get(RESERVED..).ok_or(AcpiError::Short("MCFG"))?;
    for allocation in allocations.chunks_exact(ALLOCATION) {
        let base = u64::from_le_bytes(*field(allocation, 0, "MCFG")?);
        let segment = u16::from_le_bytes(*field(allocation, 8, "MCFG")?);
        if segment == 0 && (allocation[10]..=allocation[11]).contains(&bus) {
            // 4 KiB a function, 8 functions a slot, 32 slots a bus. The base is that of bus 0.
            let number = u64::from(bus) << 8 | u64::from(slot & 0x1f) << 3 | u64::from(function & 0x7);
            return Ok(base.wrapping_add(number << 12));
        }
    }
    Err(AcpiError::Missing("MCFG entry for the device's bus"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::acpi::tests::header;

    fn mcfg(first: u8, last: u8) -> Table {
        let header = header(b"MCFG");
        let mut body = vec![0; 8];
        body.extend(0xb000_0000_u64.to_le_bytes());
        body.extend([0, 0, first, last, 0, 0, 0, 0]);
        Table { header, body }
    }

    #[test]
    fn a_function_has_its_page() {
        assert_eq!(config_space(&mcfg(0, 255), 0, 0, 0), Ok(0xb000_0000));
        assert_eq!(config_space(&mcfg(0, 255), 14, 1, 2), Ok(0xb000_0000 + (14 << 20) + (1 << 15) + (2 << 12)));
    }

    #[test]
    fn an_unknown_bus_and_an_invalid_table_are_refused() {
        assert!(matches!(config_space(&mcfg(0, 13), 14, 0, 0), Err(AcpiError::Missing(_))));
        let mut table = mcfg(0, 255);
        table.body.truncate(7);
        assert_eq!(config_space(&table, 0, 0, 0), Err(AcpiError::Short("MCFG")));
        table.header.signature = *b"SRAT";
        assert_eq!(config_space(&table, 0, 0, 0), Err(AcpiError::Signature("MCFG")));
    }
}
