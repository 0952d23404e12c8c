//! Parses the firmware's ACPI tables and writes overrides.
//!
//! A CXL window over a BAR needs a CEDT of our own: the host bridges (CHBS) as QEMU describes them and a fixed memory
//! window (CFMWS) for each BAR. Linux takes it in place of QEMU's from `kernel/firmware/acpi/` of an uncompressed
//! initramfs, provided the OEM ids are the same and the OEM revision is higher (drivers/acpi/tables.c). ACPI 6.5
//! chapter 5, CXL 3.1 section 9.18.1. The tables come from guest memory, so nothing in them is trusted.
//!
//! The crate `acpi_tables` does not replace this: it writes tables and cannot parse them, and an override starts from the
//! firmware's table. The table without such a beginning, [`ssdt`], is made with it.

pub mod dsdt;
pub mod mcfg;
pub mod srat;
pub mod ssdt;

use thiserror::Error;

/// The longest table accepted, in bytes.
pub const MAX_TABLE: usize = 1 << 20;
/// Length of the header of every table, in bytes.
pub const HEADER: usize = 36;
/// Length of an RSDP of revision 2, in bytes; one of revision 0 has only the first 20.
pub const RSDP: usize = 36;
/// The guest physical addresses where PC firmware puts the RSDP.
pub const RSDP_AREA: std::ops::Range<u64> = 0xe_0000..0x10_0000;

const RSDP_SIGNATURE: &[u8; 8] = b"RSD PTR ";
const RSDP_ALIGN: usize = 16;
const CHECKSUM: usize = 9;
const CHBS: u8 = 0;
const CFMWS: u8 = 1;
const CHBS_BYTES: usize = 32;
const CFMWS_BYTES: usize = 36;

/// CFMWS window restrictions: host-only coherent (Type 3) memory may use this window.
pub const RESTRICT_TYPE3: u16 = 1 << 1;
/// CFMWS window restrictions: volatile memory may use this window.
pub const RESTRICT_VOLATILE: u16 = 1 << 2;

/// A missing or invalid table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AcpiError {
    /// The bytes end before the structure does.
    #[error("the {0} is truncated")]
    Short(&'static str),
    /// An impossible length field.
    #[error("the {0} has an invalid length")]
    Length(&'static str),
    /// The bytes do not sum to zero.
    #[error("the {0} has a wrong checksum")]
    Checksum(&'static str),
    /// Another signature.
    #[error("the table is not a {0}")]
    Signature(&'static str),
    /// A signature that is not letters and digits.
    #[error("the table's signature must be letters and digits")]
    Name,
    /// No table with this signature, or no entry in it.
    #[error("the firmware has no {0}")]
    Missing(&'static str),
}

/// The header of a table, without length and checksum (ACPI 6.5, table 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The table's name, four letters.
    pub signature: [u8; 4],
    /// Revision of the table's format.
    pub revision: u8,
    /// The OEM.
    pub oem_id: [u8; 6],
    /// The OEM's name of the table.
    pub oem_table_id: [u8; 8],
    /// The OEM's revision. Linux takes an override only if it is higher.
    pub oem_revision: u32,
    /// The program that created the table.
    pub creator_id: [u8; 4],
    /// That program's revision.
    pub creator_revision: u32,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The header.
    pub header: Header,
    /// The bytes after the header.
    pub body: Vec<u8>,
}

/// The table length in a header, in bytes.
///
/// # Errors
/// The header is truncated, or the length is not within [`HEADER`] and [`MAX_TABLE`].
pub fn table_length(bytes: &[u8]) -> Result<usize, AcpiError> {
    let length = u32::from_le_bytes(*field(bytes, 4, "table")?) as usize;
    if (HEADER..=MAX_TABLE).contains(&length) { Ok(length) } else { Err(AcpiError::Length("table")) }
}

impl Table {
    /// Parses a table and ignores bytes after it.
    ///
    /// # Errors
    /// The table is truncated, or its length or checksum is wrong.
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
    /// The table is longer than [`MAX_TABLE`].
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

    /// The header for an override of this table: the OEM revision is one higher.
    pub fn overriding(&self) -> Header {
        Header { oem_revision: self.header.oem_revision.saturating_add(1), ..self.header }
    }
}

/// The address of the root table, from the RSDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// An RSDT, with 32-bit addresses.
    Rsdt(u64),
    /// An XSDT, with 64-bit addresses.
    Xsdt(u64),
}

/// Searches for the RSDP at every multiple of 16 bytes.
pub fn find_rsdp(memory: &[u8]) -> Option<Root> {
    find_rsdps(memory).next()
}

/// All that look like an RSDP, at multiples of 16 bytes.
pub fn find_rsdps(memory: &[u8]) -> impl Iterator<Item = Root> {
    (0..memory.len()).step_by(RSDP_ALIGN).filter_map(|at| parse_rsdp(&memory[at..]).ok())
}

/// Parses an RSDP and ignores bytes after it.
///
/// # Errors
/// The RSDP is truncated, or its signature or a checksum is wrong.
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

/// The table addresses in an RSDT or XSDT.
///
/// # Errors
/// The table's signature is not the one that `root` announces.
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
    /// Length of the registers in bytes.
    pub length: u64,
}

/// A CXL fixed memory window: CFMWS of the CEDT, with one host bridge and so without interleaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Host physical address.
    pub base: u64,
    /// Size in bytes, a multiple of 256 MiB.
    pub size: u64,
    /// The memory that may use the window: `RESTRICT_*`.
    pub restrictions: u16,
    /// QoS throttling group.
    pub qtg: u16,
    /// The host bridge's `_UID`.
    pub target: u32,
}

/// The host bridges and windows of a CEDT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cedt {
    /// Host bridges in table order.
    pub bridges: Vec<HostBridge>,
    /// Windows in table order, without interleaved ones.
    pub windows: Vec<Window>,
}

impl Cedt {
    /// Parses a CEDT and skips structures of other types.
    ///
    /// # Errors
    /// The table is not a CEDT, or a structure's length is wrong.
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

    /// Builds a CEDT with this header.
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
pub(crate) mod tests;
