//! The coherent device attribute table: the memory's speed and purpose.
//!
//! Layouts are those of the CDAT specification 1.04. The operating system reads the table an entry at a time over
//! [DOE](super::doe) and derives the memory's performance class from it.

mod file;
mod performance;

pub use self::{
    file::CdatError,
    performance::{Performance, PerformanceError, ReadWrite},
};

/// Bytes of the table's header.
const HEADER_SIZE: usize = 16;
const CHECKSUM: usize = 5;
const REVISION: u8 = 1;

/// Structure types.
const DSMAS: u8 = 0;
const DSLBIS: u8 = 1;
const DSEMTS: u8 = 4;

/// The handle that ties every structure to the one DSMAS.
const DSMAD: u8 = 0;

/// DSLBIS data types, those of the HMAT (ACPI 6.5, table 5.146).
const READ_LATENCY: u8 = 1;
const WRITE_LATENCY: u8 = 2;
const READ_BANDWIDTH: u8 = 4;
const WRITE_BANDWIDTH: u8 = 5;
/// Base units: latency counts picoseconds, bandwidth MB/s.
const NANOSECOND: u64 = 1000;
const MEGABYTE_PER_SECOND: u64 = 1;
const GIGABYTE_PER_SECOND: u64 = 1000;

/// DSEMTS memory type: conventional memory with the specific-purpose attribute (EFI_MEMORY_SP).
const SPECIFIC_PURPOSE: u8 = 1;

/// The table, as the entries it is read by.
#[derive(Clone, Debug)]
pub struct Cdat {
    /// Entry 0 is the header.
    entries: Vec<Vec<u8>>,
}

impl Cdat {
    /// The table of one volatile range, DPA 0 to `capacity`.
    pub fn new(capacity: u64, performance: &Performance) -> Self {
        let p = performance;
        let mut entries = vec![
            vec![0; HEADER_SIZE],
            dsmas(capacity),
            dslbis(READ_LATENCY, NANOSECOND, p.latency_ns().read),
            dslbis(WRITE_LATENCY, NANOSECOND, p.latency_ns().write),
            bandwidth(READ_BANDWIDTH, p.bandwidth_mbs().read),
            bandwidth(WRITE_BANDWIDTH, p.bandwidth_mbs().write),
            dsemts(capacity),
        ];
        let length = entries.iter().map(Vec::len).sum::<usize>() as u32;
        entries[0][..4].copy_from_slice(&length.to_le_bytes());
        entries[0][4] = REVISION;
        let sum = entries.iter().flatten().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        entries[0][CHECKSUM] = sum.wrapping_neg();
        Self { entries }
    }

    /// An entry: handle 0 is the header, the structures follow. None past the last.
    pub fn entry(&self, handle: u16) -> Option<&[u8]> {
        self.entries.get(usize::from(handle)).map(Vec::as_slice)
    }

    /// The handle after this one, if there is one.
    pub fn next(&self, handle: u16) -> Option<u16> {
        let next = handle.checked_add(1)?;
        self.entry(next).map(|_| next)
    }
}

/// The header of a structure and its body.
fn structure(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = vec![kind, 0];
    bytes.extend_from_slice(&(body.len() as u16 + 4).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Device scoped memory affinity structure. Flags 0: volatile, not shared, no dynamic capacity.
fn dsmas(capacity: u64) -> Vec<u8> {
    structure(DSMAS, &[&[DSMAD, 0, 0, 0], &0u64.to_le_bytes(), &capacity.to_le_bytes()])
}

/// Device scoped latency and bandwidth information structure: `value` x `base_unit`.
fn dslbis(data_type: u8, base_unit: u64, value: u16) -> Vec<u8> {
    structure(DSLBIS, &[&[DSMAD, 0, data_type, 0], &base_unit.to_le_bytes(), &value.to_le_bytes(), &[0; 6]])
}

/// The structure of a bandwidth, in MB/s, that [`Performance`] takes: in GB/s if that is a whole number.
fn bandwidth(data_type: u8, megabytes: u32) -> Vec<u8> {
    let unit = if u64::from(megabytes).is_multiple_of(GIGABYTE_PER_SECOND) {
        GIGABYTE_PER_SECOND
    } else {
        MEGABYTE_PER_SECOND
    };
    dslbis(data_type, unit, (u64::from(megabytes) / unit) as u16)
}

/// Device scoped EFI memory type structure.
fn dsemts(capacity: u64) -> Vec<u8> {
    structure(DSEMTS, &[&[DSMAD, SPECIFIC_PURPOSE, 0, 0], &0u64.to_le_bytes(), &capacity.to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 5 << 30;

    fn bytes() -> Vec<u8> {
        Cdat::new(CAPACITY, &Performance::default()).entries.concat()
    }

    #[test]
    fn the_checksum_makes_the_bytes_add_up_to_zero() {
        assert_eq!(bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }

    #[test]
    fn structure_lengths_add_up_to_the_length_in_the_header() {
        let bytes = bytes();
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        let (mut at, mut kinds) = (HEADER_SIZE, vec![]);
        while at < bytes.len() {
            kinds.push(bytes[at]);
            assert_eq!(bytes[at + 2..at + 4], [24, 0], "DSMAS, DSLBIS and DSEMTS are 24 bytes each");
            at += 24;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(kinds, [DSMAS, DSLBIS, DSLBIS, DSLBIS, DSLBIS, DSEMTS]);
    }

    #[test]
    fn handles_chain_from_the_header_to_the_last_structure() {
        let cdat = Cdat::new(CAPACITY, &Performance::default());
        let handles: Vec<u16> = std::iter::successors(Some(0), |handle| cdat.next(*handle)).collect();
        assert_eq!(handles, [0, 1, 2, 3, 4, 5, 6]);
        assert!(cdat.entry(7).is_none() && cdat.next(u16::MAX).is_none());
    }

    #[test]
    fn latencies_are_picoseconds_and_bandwidths_megabytes_per_second() {
        let values = |performance: &Performance| {
            let cdat = Cdat::new(CAPACITY, performance);
            [2, 3, 4, 5].map(|handle| {
                let entry = cdat.entry(handle).unwrap();
                let unit = u64::from_le_bytes(entry[8..16].try_into().unwrap());
                (entry[6], unit * u64::from(u16::from_le_bytes([entry[16], entry[17]])))
            })
        };
        assert_eq!(values(&Performance::default()), [(1, 250_000), (2, 300_000), (4, 16_000), (5, 16_000)]);
        let odd = Performance::new(ReadWrite { read: 1, write: 65534 }, ReadWrite { read: 65534, write: 65_534_000 });
        assert_eq!(values(&odd.unwrap()), [(1, 1000), (2, 65_534_000), (4, 65_534), (5, 65_534_000)]);
    }
}
