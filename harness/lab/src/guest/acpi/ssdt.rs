//! Builds an SSDT that writes registers, as firmware does before the operating system looks at them.
//!
//! ACPI runs the `_INI` method of every device below `\_SB` once, before Linux enumerates PCI (ACPI 6.5, section 6.5.1). Linux
//! adds an SSDT from the initramfs to the firmware's, if no table has its OEM ids.

use acpi_tables::aml::{
    Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, Method, OpRegion, OpRegionSpace, Path,
    Scope, Store,
};
use acpi_tables::{Aml, AmlSink};

use super::{Header, Table};

/// A device of this name stands for the firmware.
const FIRMWARE: &str = "CXLF";

/// The value of a register, which has its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// 16 bits.
    Word(u16),
    /// 32 bits.
    Dword(u32),
}

/// A write to a memory-mapped register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Guest physical address, a multiple of the register's width.
    pub address: u64,
    /// What is written.
    pub value: Value,
}

/// The most writes that a table holds: three hexadecimal digits name a register.
pub const MOST_WRITES: usize = 0x1000;

/// An SSDT that carries out these writes, in this order, up to [`MOST_WRITES`].
pub fn that_writes(writes: &[Write]) -> Table {
    let header = Header {
        signature: *b"SSDT",
        revision: 2,
        oem_id: *b"CXLCRM",
        oem_table_id: *b"FIRMWARE",
        oem_revision: 1,
        creator_id: *b"CRAM",
        creator_revision: 1,
    };
    // The regions are declared in the method, so that they end with it: Linux keeps a region mapped, cached, and would then refuse
    // the CXL driver its own mapping of the page.
    let (mut registers, mut stores) = (Vec::new(), Vec::new());
    for (index, Write { address, value }) in writes.iter().take(MOST_WRITES).enumerate() {
        // Each register is the only field of a region of its own.
        let region = || Path::new(&format!("R{index:03X}"));
        let name = format!("F{index:03X}").into_bytes();
        let name = [name[0], name[1], name[2], name[3]];
        let (bytes, access): (u8, _) = match value {
            Value::Word(_) => (2, FieldAccessType::Word),
            Value::Dword(_) => (4, FieldAccessType::DWord),
        };
        OpRegion::new(region(), OpRegionSpace::SystemMemory, address, &bytes).to_aml_bytes(&mut registers);
        let entry = vec![FieldEntry::Named(name, usize::from(bytes) * 8)];
        Field::new(region(), access, FieldLockRule::NoLock, FieldUpdateRule::Preserve, entry)
            .to_aml_bytes(&mut registers);
        let value: &dyn Aml = match value {
            Value::Word(word) => word,
            Value::Dword(dword) => dword,
        };
        Store::new(&Raw(name.to_vec()), value).to_aml_bytes(&mut stores);
    }
    let (registers, stores) = (Raw(registers), Raw(stores));
    let run = Method::new("_INI".into(), 0, true, vec![&registers, &stores]);
    let device = Device::new(FIRMWARE.into(), vec![&run]);
    let mut body = Vec::new();
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(&mut body);
    Table { header, body }
}

/// AML that is finished.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_a_field_in_a_region_and_a_store_when_the_machine_starts() {
        let table = that_writes(&[Write { address: 0x5c_0000_1120, value: Value::Dword(0x1200) }]);
        #[rustfmt::skip]
        let body = [
            0x10, 0x3b, b'\\', b'_', b'S', b'B', b'_', // Scope (\_SB)
            0x5b, 0x82, 0x33, b'C', b'X', b'L', b'F', // Device (CXLF)
            // Method (_INI, 0, Serialized) {
            0x14, 0x2d, b'_', b'I', b'N', b'I', 0x08,
            // OperationRegion (R000, SystemMemory, 0x5c00001120, 4)
            0x5b, 0x80, b'R', b'0', b'0', b'0', 0, 0x0e, 0x20, 0x11, 0, 0, 0x5c, 0, 0, 0, 0x0a, 4,
            // Field (R000, DWordAcc, NoLock, Preserve) { F000, 32 }
            0x5b, 0x81, 0x0b, b'R', b'0', b'0', b'0', 3, b'F', b'0', b'0', b'0', 32,
            // Store (0x1200, F000) }
            0x70, 0x0b, 0x00, 0x12, b'F', b'0', b'0', b'0',
        ];
        assert_eq!(table.body, body);
        assert_eq!(Table::parse(&table.to_bytes().unwrap()).unwrap(), table);
    }

    #[test]
    fn a_table_holds_no_more_writes_than_it_has_names_for() {
        let write = Write { address: 0x1000, value: Value::Word(4) };
        assert_eq!(that_writes(&[write; MOST_WRITES + 1]), that_writes(&[write; MOST_WRITES]));
    }
}
