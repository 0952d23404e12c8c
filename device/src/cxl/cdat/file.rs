//! A CDAT given as a file, as QEMU's `cdat=` takes it: the table's bytes, the header first.
//!
//! Its form is checked and its meaning is not: a table that describes another memory than the device's is served as it is,
//! for kernels that should survive it.

use super::{CHECKSUM, Cdat, HEADER_SIZE};

/// Bytes of the longest table: far more than any device has, and few enough to be numbered.
const MAX: usize = 64 << 10;
/// Revision 1 is that of CDAT 1.00 to 1.03, 2 that of 1.04.
const REVISIONS: [u8; 2] = [1, 2];
/// Bytes of a structure's header: type, a reserved byte, length.
const STRUCTURE_HEADER: usize = 4;
/// Structures by type, and their bytes: CDAT 1.04, tables 3 to 8.
const STRUCTURES: [(&str, usize); 6] =
    [("DSMAS", 24), ("DSLBIS", 24), ("DSMSCIS", 20), ("DSIS", 8), ("DSEMTS", 24), ("SSLBIS", 16)];
/// The last is followed by entries of this many bytes, one at least.
const SSLBIS: u8 = 5;
const SSLBIS_ENTRY: usize = 8;

/// Why bytes are no CDAT.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdatError {
    /// No header.
    #[error("{0} bytes are too few for a CDAT, whose header has 16")]
    NoHeader(usize),
    /// More than a table may have.
    #[error("a CDAT of more than 64 KiB is not taken")]
    TooLong,
    /// The length in the header is not that of the table.
    #[error("the header says {header} bytes (0 to 3, little-endian), and there are {bytes}")]
    Length {
        /// In the header.
        header: u32,
        /// There are.
        bytes: usize,
    },
    /// An unknown revision.
    #[error("revision {0} (byte 4) is not known; 1 and 2 are")]
    Revision(u8),
    /// The bytes do not add up to 0.
    #[error("the checksum (byte 5) is {found:#04x} and should be {right:#04x}: all bytes must add up to 0")]
    Checksum {
        /// In the header.
        found: u8,
        /// With which it adds up.
        right: u8,
    },
    /// The table ends inside a structure.
    #[error("the structure at byte {at} goes beyond the end of the table")]
    Truncated {
        /// Where it begins.
        at: usize,
    },
    /// A type that no structure has.
    #[error("the structure at byte {at} has the unknown type {kind}; 0 (DSMAS) to 5 (SSLBIS) are known")]
    Type {
        /// Where it begins.
        at: usize,
        /// Its type.
        kind: u8,
    },
    /// A length that no structure of its type has.
    #[error("the {name} at byte {at} is {found} bytes long and should be {right}")]
    StructureLength {
        /// The type.
        name: &'static str,
        /// Where it begins.
        at: usize,
        /// The length in its header.
        found: usize,
        /// What it should be.
        right: &'static str,
    },
}

impl Cdat {
    /// Bytes of the longest table that [`Self::parse`] takes.
    pub const MAX: usize = MAX;

    /// The table that these bytes are.
    ///
    /// # Errors
    /// Header, length, revision, checksum, or the type or length of a structure is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, CdatError> {
        if bytes.len() > MAX {
            return Err(CdatError::TooLong);
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Err(CdatError::NoHeader(bytes.len()));
        };
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if usize::try_from(length) != Ok(bytes.len()) {
            return Err(CdatError::Length { header: length, bytes: bytes.len() });
        }
        if !REVISIONS.contains(&header[4]) {
            return Err(CdatError::Revision(header[4]));
        }
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            let found = header[CHECKSUM];
            return Err(CdatError::Checksum { found, right: found.wrapping_sub(sum) });
        }
        let mut entries = vec![header.to_vec()];
        let mut at = HEADER_SIZE;
        while at < bytes.len() {
            let structure = structure(bytes, at)?;
            at += structure.len();
            entries.push(structure.to_vec());
        }
        Ok(Self { entries })
    }

    /// The table's bytes, the header first.
    pub fn bytes(&self) -> Vec<u8> {
        self.entries.concat()
    }
}

/// The structure that begins at this byte.
fn structure(bytes: &[u8], at: usize) -> Result<&[u8], CdatError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(&[kind, _, low, high]) = rest.first_chunk::<STRUCTURE_HEADER>() else {
        return Err(CdatError::Truncated { at });
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    let &(name, fixed) = STRUCTURES.get(usize::from(kind)).ok_or(CdatError::Type { at, kind })?;
    let entries = length.checked_sub(fixed);
    let right = match entries {
        Some(entries) if kind == SSLBIS => entries > 0 && entries % SSLBIS_ENTRY == 0,
        entries => entries == Some(0),
    };
    if !right {
        let right = match fixed {
            8 => "8",
            20 => "20",
            16 => "16 and a multiple of 8",
            _ => "24",
        };
        return Err(CdatError::StructureLength { name, at, found: length, right });
    }
    rest.get(..length).ok_or(CdatError::Truncated { at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cxl::cdat::Performance;

    fn table() -> Vec<u8> {
        Cdat::new(1 << 30, &Performance::default()).bytes()
    }

    /// The table with a right header.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[CHECKSUM] = 0;
        bytes[CHECKSUM] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }

    #[track_caller]
    fn refused(bytes: &[u8]) -> CdatError {
        Cdat::parse(bytes).unwrap_err()
    }

    #[test]
    fn the_devices_own_table_is_taken_and_stays_what_it_is() {
        let parsed = Cdat::parse(&table()).unwrap();
        assert_eq!(parsed.bytes(), table());
        assert_eq!(parsed.entries.len(), 7);
        assert_eq!(
            Cdat::parse(&sealed(vec![0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap().entries.len(),
            1
        );
    }

    #[test]
    fn a_header_that_does_not_fit_the_table_is_refused() {
        assert_eq!(refused(&[]), CdatError::NoHeader(0));
        assert_eq!(refused(&table()[..15]), CdatError::NoHeader(15));
        let bytes = table().len();
        assert_eq!(refused(&table()[..bytes - 1]), CdatError::Length { header: bytes as u32, bytes: bytes - 1 });
        assert_eq!(refused(&vec![0; Cdat::MAX + 1]), CdatError::TooLong);
        let mut other = table();
        other[4] = 3;
        assert_eq!(refused(&sealed(other)), CdatError::Revision(3));
        let mut other = table();
        let right = other[CHECKSUM];
        other[CHECKSUM] ^= 0x5a;
        assert_eq!(refused(&other), CdatError::Checksum { found: right ^ 0x5a, right });
    }

    #[test]
    fn a_structure_of_an_unknown_type_or_a_wrong_length_is_refused() {
        let with = |structure: &[u8]| sealed([&table()[..HEADER_SIZE], structure].concat());
        assert_eq!(refused(&with(&[6, 0, 4, 0])), CdatError::Type { at: 16, kind: 6 });
        assert_eq!(refused(&with(&[0, 0, 24])), CdatError::Truncated { at: 16 });
        assert_eq!(refused(&with(&[0, 0, 24, 0])), CdatError::Truncated { at: 16 });
        for (kind, length, taken) in [
            (0, 0, false),
            (1, 25, false),
            (2, 20, true),
            (3, 8, true),
            (4, 65535, false),
            (5, 16, false),
            (5, 32, true),
            (5, 28, false),
        ] {
            let mut structure = vec![0; usize::from(length as u16)];
            structure.resize(structure.len().max(4), 0);
            structure[0] = kind;
            structure[2..4].copy_from_slice(&(length as u16).to_le_bytes());
            assert_eq!(Cdat::parse(&with(&structure)).is_ok(), taken, "type {kind}, {length} bytes");
        }
    }

    proptest! {
        /// What is taken is served as it came, whatever was changed in it.
        #[test]
        fn any_bytes_are_refused_or_stay_what_they_are(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = table();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(HEADER_SIZE + cut.index(bytes.len() - HEADER_SIZE + 1));
            for bytes in [bytes.clone(), sealed(bytes)] {
                if let Ok(table) = Cdat::parse(&bytes) {
                    prop_assert_eq!(table.bytes(), bytes);
                }
            }
        }
    }
}
