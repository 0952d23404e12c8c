use super::*;

/// The header of a table of QEMU's firmware.
pub(crate) fn header(signature: &[u8; 4]) -> Header {
    Header {
        signature: *signature,
        revision: 1,
        oem_id: *b"BOCHS ",
        oem_table_id: *b"BXPC    ",
        oem_revision: 1,
        creator_id: *b"BXPC",
        creator_revision: 1,
    }
}

fn cedt() -> Cedt {
    Cedt {
        bridges: vec![HostBridge { uid: 12, version: 1, base: 0x3_c000_0000, length: 0x1_0000 }],
        windows: vec![
            Window::volatile(0xff_4000_0000, 512 << 20, 12),
            Window { qtg: 3, ..Window::volatile(0xff_8000_0000, 256 << 20, 12) },
        ],
    }
}

#[test]
fn a_cedt_is_laid_out_as_the_specification_says() {
    let bytes = cedt().to_table(header(b"CEDT")).to_bytes().unwrap();
    assert_eq!(bytes.len(), 36 + 32 + 2 * 40);
    assert_eq!(bytes[4..8], 148_u32.to_le_bytes());
    assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let chbs = &bytes[36..68];
    assert_eq!(chbs[..12], [0, 0, 32, 0, 12, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(chbs[16..24], 0x3_c000_0000_u64.to_le_bytes());
    let cfmws = &bytes[68..108];
    assert_eq!(cfmws[..4], [1, 0, 40, 0]);
    assert_eq!(cfmws[8..16], 0xff_4000_0000_u64.to_le_bytes());
    assert_eq!(cfmws[16..24], (512_u64 << 20).to_le_bytes());
    assert_eq!(cfmws[24..], [0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 12, 0, 0, 0]);
}

#[test]
fn a_cedt_reads_back_without_unknown_structures() {
    let mut table = cedt().to_table(header(b"CEDT"));
    table.body.extend([9, 0, 6, 0, 1, 2]);
    let read = Table::parse(&table.to_bytes().unwrap()).unwrap();
    assert_eq!(read, table);
    assert_eq!(Cedt::parse(&read).unwrap(), cedt());
}

#[test]
fn an_override_has_the_same_ids_and_a_higher_revision() {
    let table = cedt().to_table(header(b"CEDT"));
    assert_eq!(table.overriding(), Header { oem_revision: 2, ..table.header });
}

#[test]
fn every_truncation_and_every_changed_byte_is_detected() {
    let bytes = cedt().to_table(header(b"CEDT")).to_bytes().unwrap();
    for cut in 0..bytes.len() {
        assert!(Table::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        assert!(Table::parse(&changed).is_err(), "changed at {at}");
    }
}

#[test]
fn structures_with_invalid_lengths_are_refused() {
    let parse = |body: &[u8]| Cedt::parse(&Table { header: header(b"CEDT"), body: body.to_vec() });
    assert_eq!(parse(&[0, 0, 0, 0]), Err(AcpiError::Length("CEDT structure")));
    assert_eq!(parse(&[0, 0, 3, 0]), Err(AcpiError::Length("CEDT structure")));
    assert_eq!(parse(&[0, 0, 200, 0]), Err(AcpiError::Short("CEDT structure")));
    assert_eq!(parse(&[0, 0]), Err(AcpiError::Short("CEDT structure")));
    assert_eq!(parse(&[0, 0, 4, 0]), Err(AcpiError::Short("CHBS")));
    assert_eq!(parse(&[1, 0, 8, 0, 0, 0, 0, 0]), Err(AcpiError::Short("CFMWS")));
    assert_eq!(Cedt::parse(&Table { header: header(b"SRAT"), body: Vec::new() }), Err(AcpiError::Signature("CEDT")));
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0BOCHS ".to_vec();
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    bytes[8] = sum(&bytes).wrapping_neg();
    if revision >= 2 {
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        bytes[32] = sum(&bytes).wrapping_neg();
    }
    bytes
}

#[test]
fn the_rsdp_is_found_among_false_ones() {
    let mut memory = vec![0; 4096];
    // One is not aligned to 16 bytes, one has a wrong checksum.
    memory[8..28].copy_from_slice(&rsdp(0, 1, 0));
    memory[64..84].copy_from_slice(&rsdp(0, 2, 0));
    memory[72] ^= 1;
    assert_eq!(find_rsdp(&memory), None);
    memory[512..532].copy_from_slice(&rsdp(0, 0x7fff_0000, 0));
    assert_eq!(find_rsdp(&memory), Some(Root::Rsdt(0x7fff_0000)));
    assert_eq!(find_rsdp(&memory[..520]), None);
    memory[256..292].copy_from_slice(&rsdp(2, 1, 0x1_0000_0000));
    assert_eq!(find_rsdp(&memory), Some(Root::Xsdt(0x1_0000_0000)));
    assert_eq!(find_rsdp(&[]), None);
}

#[test]
fn the_root_table_lists_addresses_of_its_own_width() {
    let body = [1_u32, 0, 2, 0, 3].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let rsdt = Table { header: header(b"RSDT"), body: body.clone() };
    let xsdt = Table { header: header(b"XSDT"), body };
    assert_eq!(root_entries(Root::Rsdt(0), &rsdt).unwrap(), [1, 0, 2, 0, 3]);
    assert_eq!(root_entries(Root::Xsdt(0), &xsdt).unwrap(), [1, 2]);
    assert!(root_entries(Root::Rsdt(0), &xsdt).is_err());
}
