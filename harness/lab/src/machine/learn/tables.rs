//! Finds ACPI tables in the memory of a machine whose firmware has run.
//!
//! SeaBIOS leaves the root pointer in the BIOS area, as the specification asks of such firmware. UEFI firmware hands it to the
//! operating system's loader, and has it somewhere near the end of the memory below 4 GiB (ACPI 6.5, 5.2.5).

use std::ops::Range;

use crate::guest::acpi::{self, AcpiError, Root, Table};

/// Maximum number of entries read from the root table.
const MAX_TABLES: usize = 256;
/// How far below the end of low memory UEFI firmware's data is searched. OVMF's lies within the last 64 MiB or so.
const SEARCHED: u64 = 256 << 20;
/// Bytes searched at a time, from the end downwards.
const PIECE: u64 = 16 << 20;
/// The longest root pointer, which may lie across two pieces.
const OVERLAP: u64 = 64;

#[derive(Debug)]
pub(super) enum FindError<E> {
    Acpi(AcpiError),
    Read(E),
}

impl<E> From<AcpiError> for FindError<E> {
    fn from(error: AcpiError) -> Self {
        Self::Acpi(error)
    }
}

/// Follows the root pointer in the BIOS area to the table with this signature.
pub(super) fn find_table<E>(
    signature: &[u8; 4],
    name: &'static str,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Table, FindError<E>> {
    let area = acpi::RSDP_AREA;
    let length = (area.end - area.start) as usize;
    let found = acpi::find_rsdp(&read(area.start, length).map_err(FindError::Read)?);
    find_below(found.ok_or(AcpiError::Missing("RSDP"))?, signature, name, read)
}

/// Searches the end of this memory for a root pointer that leads to a table with this signature. There may be stale copies of
/// it, which lead nowhere.
pub(super) fn search<E>(
    memory: Range<u64>,
    signature: &[u8; 4],
    name: &'static str,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Root, FindError<E>> {
    let lowest = memory.end.saturating_sub(SEARCHED).max(memory.start);
    let mut end = memory.end;
    while end > lowest {
        let start = end.saturating_sub(PIECE).max(lowest);
        let stop = (end + OVERLAP).min(memory.end);
        let piece = read(start, (stop - start) as usize).map_err(FindError::Read)?;
        for root in acpi::find_rsdps(&piece) {
            match find_below(root, signature, name, &mut read) {
                Ok(_) => return Ok(root),
                Err(FindError::Acpi(_)) => {}
                Err(error) => return Err(error),
            }
        }
        end = start;
    }
    Err(AcpiError::Missing("RSDP").into())
}

/// Follows the root table to the table with this signature.
pub(super) fn find_below<E>(
    root: Root,
    signature: &[u8; 4],
    name: &'static str,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Table, FindError<E>> {
    let mut table = |address: u64| -> Result<Table, FindError<E>> {
        let length = acpi::table_length(&read(address, acpi::HEADER).map_err(FindError::Read)?)?;
        Ok(Table::parse(&read(address, length).map_err(FindError::Read)?)?)
    };
    let (Root::Rsdt(address) | Root::Xsdt(address)) = root;
    for entry in acpi::root_entries(root, &table(address)?)?.into_iter().take(MAX_TABLES) {
        // A damaged table is skipped; if it was the one, it is reported as missing.
        match table(entry) {
            Ok(table) if &table.header.signature == signature => return Ok(table),
            Ok(_) | Err(FindError::Acpi(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(AcpiError::Missing(name).into())
}
