//! Makes AML's integers 64 bits wide.
//!
//! The revision of the DSDT decides for all AML of a machine: below 2 integers have 32 bits (ACPI 6.5, section 5.2.11.1). QEMU's has
//! revision 1, so AML cannot name a register above 4 GiB: a longer address is cut off, with no more than a warning.

use super::{AcpiError, Header, Table, field};

/// The first revision with integers of 64 bits.
const WIDE: u8 = 2;
/// The address of the DSDT in the FADT, after its header: 32 bits, and 64 bits in a longer table (5.2.9).
const DSDT: usize = 4;
const X_DSDT: usize = 104;

/// The address of the DSDT.
///
/// # Errors
/// The table is not a FADT, is truncated, or has no address.
pub fn address(fadt: &Table) -> Result<u64, AcpiError> {
    if &fadt.header.signature != b"FACP" {
        return Err(AcpiError::Signature("FACP"));
    }
    let long = field(&fadt.body, X_DSDT, "FACP").map_or(0, |address| u64::from_le_bytes(*address));
    let address = if long == 0 { u32::from_le_bytes(*field(&fadt.body, DSDT, "FACP")?).into() } else { long };
    if address == 0 { Err(AcpiError::Missing("DSDT")) } else { Ok(address) }
}

/// An override of this DSDT with the same contents and integers of 64 bits, if it needs one.
pub fn with_wide_integers(dsdt: &Table) -> Option<Table> {
    let header = Header { revision: WIDE, ..dsdt.overriding() };
    (dsdt.header.revision < WIDE).then(|| Table { header, body: dsdt.body.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::acpi::tests::header;

    fn table(signature: &[u8; 4], revision: u8, body: Vec<u8>) -> Table {
        let header = Header { revision, ..header(signature) };
        Table { header, body }
    }

    #[test]
    fn the_long_address_counts_where_there_is_one() {
        let mut body = vec![0; 208];
        body[4..8].copy_from_slice(&0x3ffe_0040_u32.to_le_bytes());
        assert_eq!(address(&table(b"FACP", 3, body.clone())), Ok(0x3ffe_0040));
        body[104..112].copy_from_slice(&0x1_2345_6780_u64.to_le_bytes());
        assert_eq!(address(&table(b"FACP", 3, body.clone())), Ok(0x1_2345_6780));
        body.truncate(80);
        assert_eq!(address(&table(b"FACP", 1, body)), Ok(0x3ffe_0040));
        assert_eq!(address(&table(b"FACP", 1, vec![0; 80])), Err(AcpiError::Missing("DSDT")));
        assert_eq!(address(&table(b"FACP", 1, vec![0; 7])), Err(AcpiError::Short("FACP")));
        assert_eq!(address(&table(b"SRAT", 1, vec![1; 80])), Err(AcpiError::Signature("FACP")));
    }

    #[test]
    fn only_a_table_with_narrow_integers_is_overridden() {
        let narrow = table(b"DSDT", 1, vec![1, 2, 3]);
        let wide = with_wide_integers(&narrow).unwrap();
        assert_eq!((wide.header.revision, wide.header.oem_revision, &wide.body), (2, 2, &narrow.body));
        assert_eq!(with_wide_integers(&wide), None);
    }
}
