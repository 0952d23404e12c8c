//! ACPI tables: read from what the firmware made, and written as overrides.
//! A CXL window over a BAR needs a CEDT of our own: the host bridges (CHBS) as QEMU describes them and a fixed memory
//! window (CFMWS) for each BAR. Linux takes it in place of QEMU's from `kernel/firmware/acpi/` of an uncompressed
//! initramfs, provided the OEM ids are the same and the OEM revision is higher (drivers/acpi/tables.c). ACPI 6.5
//! chapter 5, CXL 3.1 section 9.18.1. Everything that is read is a guest's memory: nothing in it is believed.

pub mod srat;

use thiserror::Error;

/// The longest table that is read, in bytes.
pub const MAX_TABLE: usize = 1 << 20;
/// Bytes in the header that every table has.
pub const HEADER: usize = 36;
/// Bytes in an RSDP of revision 2; one of revision 0 has the first 20.
pub const RSDP: usize = 36;
/// The part of guest memory that firmware puts the RSDP in on a PC.
pub const RSDP_AREA: std::ops::Range<u64> = 0xe_0000..0x10_0000;

const RSDP_SIGNATURE: &[u8; 8] = b"RSD PTR ";
const RSDP_ALIGN: usize = 16;
const CHECKSUM: usize = 9;
const CHBS: u8 = 0;
const CFMWS: u8 = 1;
const CHBS_BYTES: usize = 32;
const CFMWS_BYTES: usize = 36;

/// CFMWS window restrictions: device-coherent memory is not for this window, host-only coherent (Type 3) is.
pub const RESTRICT_TYPE3: u16 = 1 << 1;
/// CFMWS window restrictions: volatile memory may be put here.
pub const RESTRICT_VOLATILE: u16 = 1 << 2;

/// Why bytes are no table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AcpiError {
    /// The bytes end before the structure does.
    #[error("the {0} is cut short")]
    Short(&'static str),
    /// A length field that cannot be.
    #[error("the {0} says a length that cannot be")]
    Length(&'static str),
    /// The bytes do not sum to zero.
    #[error("the checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// Another table.
    #[error("the table is not a {0}")]
    Signature(&'static str),
    /// There is no such table.
    #[error("the firmware has made no {0}")]
    Missing(&'static str),
}

/// What every table begins with, without its length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Four letters.
    pub signature: [u8; 4],
    /// Of the table's format.
    pub revision: u8,
    /// Who made it.
    pub oem_id: [u8; 6],
    /// For what.
    pub oem_table_id: [u8; 8],
    /// The higher one wins.
    pub oem_revision: u32,
    /// The compiler.
    pub creator_id: [u8; 4],
    /// The compiler's revision.
    pub creator_revision: u32,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it begins with.
    pub header: Header,
    /// What comes after.
    pub body: Vec<u8>,
}

/// The length that a table's header states, in bytes.
///
/// # Errors
/// The header is short, or the length is less than the header's or more than [`MAX_TABLE`].
pub fn table_length(bytes: &[u8]) -> Result<usize, AcpiError> {
    let length = u32::from_le_bytes(*field(bytes, 4, "table")?) as usize;
    if (HEADER..=MAX_TABLE).contains(&length) { Ok(length) } else { Err(AcpiError::Length("table")) }
}

impl Table {
    /// Reads a table; bytes after it are ignored.
    ///
    /// # Errors
    /// It is short, or its length or checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, AcpiError> {
        let bytes = bytes.get(..table_length(bytes)?).ok_or(AcpiError::Short("table"))?;
        if sum(bytes) != 0 {
            return Err(AcpiError::Checksum("table"));
        }
        let what = "table";
        let header = Header {
            signature: *field(bytes, 0, what)?,
            revision: field::<1>(bytes, 8, what)?[0],
            oem_id: *field(bytes, 10, what)?,
            oem_table_id: *field(bytes, 16, what)?,
            oem_revision: u32::from_le_bytes(*field(bytes, 24, what)?),
            creator_id: *field(bytes, 28, what)?,
            creator_revision: u32::from_le_bytes(*field(bytes, 32, what)?),
        };
        Ok(Self { header, body: bytes[HEADER..].to_vec() })
    }

    /// The table's bytes, with length and checksum.
    ///
    /// # Errors
    /// It is longer than [`MAX_TABLE`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, AcpiError> {
        let length = self.body.len() + HEADER;
        let length = u32::try_from(length).ok().filter(|_| length <= MAX_TABLE).ok_or(AcpiError::Length("table"))?;
        let Header { signature, revision, oem_id, oem_table_id, oem_revision, creator_id, creator_revision } =
            self.header;
        let mut bytes = Vec::new();
        bytes.extend(signature);
        bytes.extend(length.to_le_bytes());
        bytes.extend([revision, 0]);
        bytes.extend(oem_id);
        bytes.extend(oem_table_id);
        bytes.extend(oem_revision.to_le_bytes());
        bytes.extend(creator_id);
        bytes.extend(creator_revision.to_le_bytes());
        bytes.extend(&self.body);
        bytes[CHECKSUM] = sum(&bytes).wrapping_neg();
        Ok(bytes)
    }

    /// The header of a table that Linux takes in place of this one.
    pub fn overriding(&self) -> Header {
        Header { oem_revision: self.header.oem_revision.saturating_add(1), ..self.header }
    }
}

/// Where the RSDP says the table of tables is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// An RSDT, with 32-bit addresses.
    Rsdt(u64),
    /// An XSDT, with 64-bit addresses.
    Xsdt(u64),
}

/// Looks for the RSDP on every 16 bytes.
pub fn find_rsdp(memory: &[u8]) -> Option<Root> {
    (0..memory.len()).step_by(RSDP_ALIGN).find_map(|at| parse_rsdp(&memory[at..]).ok())
}

/// Reads an RSDP; bytes after it are ignored.
///
/// # Errors
/// It is short, or its signature or a checksum is wrong.
pub fn parse_rsdp(bytes: &[u8]) -> Result<Root, AcpiError> {
    let what = "RSDP";
    let first = field::<20>(bytes, 0, what)?;
    if &first[..8] != RSDP_SIGNATURE {
        return Err(AcpiError::Signature(what));
    }
    if sum(first) != 0 {
        return Err(AcpiError::Checksum(what));
    }
    if first[15] >= 2 {
        let whole = field::<RSDP>(bytes, 0, what)?;
        if sum(whole) != 0 {
            return Err(AcpiError::Checksum(what));
        }
        let xsdt = u64::from_le_bytes(*field(whole, 24, what)?);
        if xsdt != 0 {
            return Ok(Root::Xsdt(xsdt));
        }
    }
    Ok(Root::Rsdt(u32::from_le_bytes(*field(first, 16, what)?).into()))
}

/// The addresses in an RSDT or XSDT.
///
/// # Errors
/// The table is the other one, or none.
pub fn root_entries(root: Root, table: &Table) -> Result<Vec<u64>, AcpiError> {
    match (root, &table.header.signature) {
        (Root::Rsdt(_), b"RSDT") => {
            Ok(table.body.as_chunks().0.iter().map(|e| u32::from_le_bytes(*e).into()).collect())
        }
        (Root::Xsdt(_), b"XSDT") => Ok(table.body.as_chunks().0.iter().map(|e| u64::from_le_bytes(*e)).collect()),
        (Root::Rsdt(_), _) => Err(AcpiError::Signature("RSDT")),
        (Root::Xsdt(_), _) => Err(AcpiError::Signature("XSDT")),
    }
}

/// A CXL host bridge: CHBS of the CEDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// The ACPI `_UID` of the bridge.
    pub uid: u32,
    /// 0: RCRB, 1: component registers.
    pub version: u32,
    /// Guest physical address of the registers.
    pub base: u64,
    /// Bytes of registers.
    pub length: u64,
}

/// A CXL fixed memory window: CFMWS of the CEDT, without interleave: one host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Host physical address.
    pub base: u64,
    /// Bytes, a multiple of 256 MiB.
    pub size: u64,
    /// What may be put there: `RESTRICT_*`.
    pub restrictions: u16,
    /// QoS throttling group.
    pub qtg: u16,
    /// The host bridge's `_UID`.
    pub target: u32,
}

/// The structures of a CEDT that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cedt {
    /// In table order.
    pub bridges: Vec<HostBridge>,
    /// In table order. Interleaved ones are not listed.
    pub windows: Vec<Window>,
}

impl Cedt {
    /// Reads a CEDT. Structures of other types are skipped.
    ///
    /// # Errors
    /// It is another table, or a structure's length is wrong.
    pub fn parse(table: &Table) -> Result<Self, AcpiError> {
        if &table.header.signature != b"CEDT" {
            return Err(AcpiError::Signature("CEDT"));
        }
        let mut cedt = Self::default();
        let mut rest = &table.body[..];
        while !rest.is_empty() {
            let what = "CEDT structure";
            let length = usize::from(u16::from_le_bytes(*field(rest, 2, what)?));
            if length < 4 {
                return Err(AcpiError::Length(what));
            }
            let (structure, after) = rest.split_at_checked(length).ok_or(AcpiError::Short(what))?;
            match structure[0] {
                CHBS => cedt.bridges.push(HostBridge::parse(structure)?),
                CFMWS => cedt.windows.extend(Window::parse(structure)?),
                _ => {}
            }
            rest = after;
        }
        Ok(cedt)
    }

    /// A CEDT with this header.
    pub fn to_table(&self, header: Header) -> Table {
        let bridges = self.bridges.iter().copied().flat_map(HostBridge::to_bytes);
        let body = bridges.chain(self.windows.iter().copied().flat_map(Window::to_bytes)).collect();
        Table { header: Header { signature: *b"CEDT", ..header }, body }
    }
}

impl HostBridge {
    fn parse(bytes: &[u8]) -> Result<Self, AcpiError> {
        let what = "CHBS";
        Ok(Self {
            uid: u32::from_le_bytes(*field(bytes, 4, what)?),
            version: u32::from_le_bytes(*field(bytes, 8, what)?),
            base: u64::from_le_bytes(*field(bytes, 16, what)?),
            length: u64::from_le_bytes(*field(bytes, 24, what)?),
        })
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![CHBS, 0, CHBS_BYTES as u8, 0];
        bytes.extend(self.uid.to_le_bytes());
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes
    }
}

impl Window {
    /// A window for volatile memory of Type 3 devices.
    pub fn volatile(base: u64, size: u64, target: u32) -> Self {
        Self { base, size, restrictions: RESTRICT_TYPE3 | RESTRICT_VOLATILE, qtg: 0, target }
    }

    fn parse(bytes: &[u8]) -> Result<Option<Self>, AcpiError> {
        let what = "CFMWS";
        let window = Self {
            base: u64::from_le_bytes(*field(bytes, 8, what)?),
            size: u64::from_le_bytes(*field(bytes, 16, what)?),
            restrictions: u16::from_le_bytes(*field(bytes, 32, what)?),
            qtg: u16::from_le_bytes(*field(bytes, 34, what)?),
            target: u32::from_le_bytes(*field(bytes, 36, what)?),
        };
        // Encoded number of interleave ways: 0 is one way.
        Ok((bytes[24] == 0).then_some(window))
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![CFMWS, 0, (CFMWS_BYTES + 4) as u8, 0];
        bytes.extend([0; 4]);
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        // One way, modulo arithmetic, reserved, granularity 256: none of it matters with one target.
        bytes.extend([0; 8]);
        bytes.extend(self.restrictions.to_le_bytes());
        bytes.extend(self.qtg.to_le_bytes());
        bytes.extend(self.target.to_le_bytes());
        bytes
    }
}

fn field<'a, const N: usize>(bytes: &'a [u8], at: usize, what: &'static str) -> Result<&'a [u8; N], AcpiError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(AcpiError::Short(what))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
