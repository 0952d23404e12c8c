//! Adds memory ranges to the SRAT, which assigns memory to proximity domains (ACPI 6.5, section 5.2.16).
//!
//! Linux creates a domain for every CXL window that is not in the SRAT (`acpi_parse_cfmws`). A window within a range of
//! the SRAT gets that range's domain, and with it the values in HMAT and SLIT.

use super::{AcpiError, Header, Table};

/// Table revision, and reserved bytes, before the first structure.
const RESERVED: usize = 12;
const MEMORY_AFFINITY: u8 = 1;
const MEMORY_AFFINITY_BYTES: u8 = 40;
/// Flags: the structure is valid; the memory may be added at run time.
const ENABLED: u32 = 1 << 0;
const HOT_PLUGGABLE: u32 = 1 << 1;

/// A range of memory and its proximity domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAffinity {
    /// The proximity domain.
    pub domain: u32,
    /// Host physical address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

/// An override of this SRAT, with additional ranges of hot-pluggable memory.
///
/// # Errors
/// The table is not an SRAT, or is truncated.
pub fn with_hot_pluggable(srat: &Table, ranges: &[MemoryAffinity]) -> Result<Table, AcpiError> {
    if &srat.header.signature != b"SRAT" {
        return Err(AcpiError::Signature("SRAT"));
    }
    if srat.body.len() < RESERVED {
        return Err(AcpiError::Short("SRAT"));
    }
    let added = ranges.iter().flat_map(|range| range.to_bytes());
    let body = srat.body.iter().copied().chain(added).collect();
    Ok(Table { header: Header { signature: *b"SRAT", ..srat.overriding() }, body })
}

impl MemoryAffinity {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![MEMORY_AFFINITY, MEMORY_AFFINITY_BYTES];
        bytes.extend(self.domain.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((ENABLED | HOT_PLUGGABLE).to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::acpi::tests::header;

    fn srat(body: Vec<u8>) -> Table {
        let header = header(b"SRAT");
        Table { header, body }
    }

    const RANGE: MemoryAffinity = MemoryAffinity { domain: 2, base: 0xff_4000_0000, size: 512 << 20 };

    #[test]
    fn a_window_is_added_after_the_firmwares_structures() {
        let firmware: Vec<u8> = (0..52).collect();
        let table = with_hot_pluggable(&srat(firmware.clone()), &[RANGE]).unwrap();
        assert_eq!(table.header.oem_revision, 2);
        assert_eq!(table.body[..52], firmware);
        let added = &table.body[52..];
        assert_eq!(added.len(), 40);
        assert_eq!(added[..8], [1, 40, 2, 0, 0, 0, 0, 0]);
        assert_eq!(added[8..16], 0xff_4000_0000_u64.to_le_bytes());
        assert_eq!(added[16..24], (512_u64 << 20).to_le_bytes());
        assert_eq!(added[24..], [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Table::parse(&table.to_bytes().unwrap()).unwrap(), table);
    }

    #[test]
    fn a_table_that_is_not_an_srat_is_refused() {
        assert_eq!(with_hot_pluggable(&srat(vec![0; 11]), &[]), Err(AcpiError::Short("SRAT")));
        let mut hmat = srat(vec![0; 12]);
        hmat.header.signature = *b"HMAT";
        assert_eq!(with_hot_pluggable(&hmat, &[RANGE]), Err(AcpiError::Signature("SRAT")));
    }
}
