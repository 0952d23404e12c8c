use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::guest::acpi::tests::header;
use crate::guest::acpi::{HostBridge, RSDP_AREA};
use crate::machine::config::{Device, Domain};

fn table(signature: &[u8; 4], body: Vec<u8>) -> Table {
    Table { header: header(signature), body }
}

fn cedt() -> Table {
    let bridge = HostBridge { uid: 12, version: 1, base: 0x3_c000_0000, length: 0x1_0000 };
    Cedt { bridges: vec![bridge], windows: Vec::new() }.to_table(table(b"CEDT", Vec::new()).header)
}

/// Guest memory up to 1 MiB: the tables from 64 KiB on, 4 KiB each, the first being the root.
fn memory(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut memory = vec![0; RSDP_AREA.end as usize];
    for (index, table) in tables.iter().enumerate() {
        let at = 0x1_0000 + index * 0x1000;
        memory[at..at + table.len()].copy_from_slice(table);
    }
    let mut rsdp = b"RSD PTR \0BOCHS \0".to_vec();
    rsdp.extend(0x1_0000_u32.to_le_bytes());
    rsdp[8] = rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    memory[0xf_0000..0xf_0014].copy_from_slice(&rsdp);
    memory
}

fn find(memory: &[u8]) -> Result<Table, AcpiError> {
    // Outside of memory, QEMU returns zeroes or an error; here it is zeroes.
    let read = |address: u64, length: usize| {
        let at = usize::try_from(address).unwrap();
        Ok::<_, Infallible>((at..at + length).map(|at| memory.get(at).copied().unwrap_or(0)).collect())
    };
    find_table(b"CEDT", "CEDT", read).map_err(|error| match error {
        FindError::Acpi(error) => error,
        FindError::Read(never) => match never {},
    })
}

fn rsdt(entries: &[u32]) -> Vec<u8> {
    table(b"RSDT", entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()).to_bytes().unwrap()
}

#[test]
fn the_cedt_is_found_behind_the_rsdp() {
    let other = table(b"APIC", vec![1, 2, 3]).to_bytes().unwrap();
    let tables = [rsdt(&[0x1_1000, 0x1_2000]), other, cedt().to_bytes().unwrap()];
    assert_eq!(find(&memory(&tables)).unwrap(), cedt());
}

#[test]
fn behind_uefi_firmware_the_cedt_is_searched_from_the_end_of_memory() {
    let rsdp = |table: u32| {
        let mut rsdp = b"RSD PTR \0BOCHS \0".to_vec();
        rsdp.extend(table.to_le_bytes());
        rsdp[8] = rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        rsdp
    };
    // Across two pieces of the search, and above it one that leads nowhere.
    let mut memory = memory(&[rsdt(&[0x1_1000]), cedt().to_bytes().unwrap()]);
    memory.resize(40 << 20, 0);
    for (at, table) in [((24 << 20) - 16, 0x1_0000), ((39 << 20) + 32, 0x5_0000)] {
        memory[at..at + 20].copy_from_slice(&rsdp(table));
    }
    let look = |memory: &[u8]| {
        let read = |address: u64, length: usize| {
            let at = usize::try_from(address).unwrap();
            Ok::<_, Infallible>((at..at + length).map(|at| memory.get(at).copied().unwrap_or(0)).collect::<Vec<u8>>())
        };
        search(0x10_0000..memory.len() as u64, b"CEDT", "CEDT", read).ok()
    };
    assert_eq!(look(&memory), Some(Root::Rsdt(0x1_0000)));
    memory[(24 << 20) - 16] = 0;
    assert_eq!(look(&memory), None, "the BIOS area is not searched");
}

#[test]
fn tables_that_are_missing_or_damaged_are_not_found() {
    assert_eq!(find(&[]), Err(AcpiError::Missing("RSDP")));
    assert_eq!(find(&memory(&[])), Err(AcpiError::Length("table")));
    assert_eq!(find(&memory(&[rsdt(&[0x1_1000, u32::MAX])])), Err(AcpiError::Missing("CEDT")));
    let mut damaged = cedt().to_bytes().unwrap();
    damaged[40] ^= 1;
    assert_eq!(find(&memory(&[rsdt(&[0x1_1000]), damaged])), Err(AcpiError::Missing("CEDT")));
}

fn config(capacity: u64) -> MachineConfig {
    let mut config = MachineConfig::new(Arc::new(|| Command::new("qemu-system-x86_64")));
    config.devices = vec![Device { socket: "s".into(), capacity }];
    config
}

#[test]
fn the_window_lies_over_the_bar_and_is_smaller() {
    let bar = Bar { address: 0xff_4000_0000, size: 1 << 30 };
    let learned = Learned { bars: vec![bar], cedt: cedt(), srat: None, dsdt: None, programmed: None };
    let table = learned.cedt_override(&config(512 << 20)).unwrap();
    assert_eq!(table.header.oem_revision, 2);
    let made = Cedt::parse(&table).unwrap();
    assert_eq!(made.windows, [Window::volatile(0xff_4000_0000, 512 << 20, 12)]);
    assert_eq!(made.bridges, Cedt::parse(&cedt()).unwrap().bridges);
    let error = learned.cedt_override(&config(1 << 30)).unwrap_err();
    assert!(matches!(error, LearnError::Nesting { device: 0, .. }), "{error}");
}

#[test]
fn a_window_with_its_own_domain_is_in_the_srat() {
    let bar = Bar { address: 0xff_4000_0000, size: 1 << 30 };
    let srat = table(b"SRAT", vec![0; 12]);
    let mut learned = Learned { bars: vec![bar], cedt: cedt(), srat: Some(srat.clone()), dsdt: None, programmed: None };
    let mut config = config(512 << 20);
    assert_eq!(learned.overrides(&config).unwrap().len(), 1);
    config.domains = vec![Domain { latency_ns: 300, bandwidth_gib: 8 }];
    let range = MemoryAffinity { domain: 1, base: bar.address, size: 512 << 20 };
    assert_eq!(learned.overrides(&config).unwrap()[1], srat::with_hot_pluggable(&srat, &[range]).unwrap());
    learned.srat = None;
    assert!(matches!(learned.overrides(&config), Err(LearnError::Acpi(AcpiError::Missing("SRAT")))));
}

#[test]
fn a_cedt_without_the_host_bridge_is_refused() {
    let learned = Learned {
        bars: Vec::new(),
        cedt: Cedt::default().to_table(cedt().header),
        srat: None,
        dsdt: None,
        programmed: None,
    };
    assert!(matches!(learned.cedt_override(&config(1 << 30)), Err(LearnError::NoBridge(12))));
}

#[test]
fn a_bar_is_found_behind_its_own_port_and_only_with_an_address() {
    let function = |address: i64| {
        serde_json::json!({
            "bus": 14, "slot": 0, "function": 0, "irq_pin": 0, "qdev_id": "cxl-mem0",
            "class_info": {"class": 1282}, "id": {"vendor": 0x8086, "device": 0x0d93},
            "regions": [
                {"bar": 0, "type": "memory", "address": 4096, "size": 4096},
                {"bar": 2, "type": "memory", "address": address, "size": 1 << 30},
            ],
        })
    };
    let range = serde_json::json!({"base": 0, "limit": 0});
    let bus = serde_json::json!({
        "number": 0, "secondary": 1, "subordinate": 1,
        "io_range": range, "memory_range": range, "prefetchable_range": range,
    });
    let port = |name: &str, address: i64| {
        serde_json::json!({
            "bus": 12, "slot": 0, "function": 0, "irq_pin": 0, "qdev_id": name,
            "class_info": {"class": 1540}, "id": {"vendor": 0x8086, "device": 0x7075}, "regions": [],
            "pci_bridge": {"bus": bus, "devices": [function(address)]},
        })
    };
    let devices: Vec<qmp::PciDeviceInfo> =
        serde_json::from_value(serde_json::json!([port("rp0", -1), port("rp1", 0x1_0000_0000_i64)])).unwrap();
    let mut found = Vec::new();
    functions_below(None, devices, &mut found);
    let ports: Vec<_> = found.iter().map(|function| function.port.qdev_id.as_str()).collect();
    assert_eq!(ports, ["rp0", "rp1"]);
    let windows: Vec<_> = found.iter().map(|function| bar(&function.function, HDM_BAR)).collect();
    let window = Bar { address: 0x1_0000_0000, size: 1 << 30 };
    assert_eq!(windows, [None, Some(window)], "a device without an address is found, so it can be reported");
    assert_eq!(bar(&found[0].function, 0), Some(Bar { address: 4096, size: 4096 }));
    assert_eq!(bar(&found[0].function, 4), None);
}

#[test]
fn firmware_that_commits_decoders_has_a_table_for_it() {
    let bar = Bar { address: 0xff_4000_0000, size: 1 << 30 };
    let structure = |address| Structure { address, count: 4 };
    let endpoint = Endpoint { decoders: structure(0xfe80_1200), control: (0xb0e0_010c, 2), port: 0 };
    let programmed = Programmed { bridge: structure(0x3_c000_1110), endpoints: vec![endpoint] };
    let mut learned = Learned { bars: vec![bar], cedt: cedt(), srat: None, dsdt: None, programmed: None };
    let tables = learned.own_overrides(&[512 << 20], Decoders::Committed).unwrap();
    assert_eq!(tables.len(), 1, "without the registers there is nothing to write");
    let committed = programmed.commit(&[Bar { size: 512 << 20, ..bar }], false);
    learned.programmed = Some(programmed);
    learned.dsdt = Some(table(b"DSDT", vec![1, 2, 3]));
    let tables = learned.own_overrides(&[512 << 20], Decoders::Committed).unwrap();
    assert_eq!(tables[1].header.revision, 2, "AML must reach registers above 4 GiB");
    assert_eq!(tables[2], ssdt::that_writes(&committed));
    let locked = learned.own_overrides(&[512 << 20], Decoders::Locked).unwrap();
    assert_ne!(locked[2], tables[2]);
}

#[test]
fn a_window_has_the_capacity_reported_by_its_device_or_given() {
    let own = |capacity| UserDevice { bar: Bar { address: 0xff_4000_0000, size: 4 << 30 }, capacity };
    let two = [own(Some(768 << 20)), own(Some(1 << 30))];
    assert_eq!(own_capacities(&two, &[]).unwrap(), [768 << 20, 1 << 30]);
    assert_eq!(own_capacities(&two, &[256 << 20, 1 << 30]).unwrap(), [256 << 20, 1 << 30]);
    let error = own_capacities(&two, &[512 << 20, 2 << 30]).unwrap_err().to_string();
    assert_eq!(error, "--capacity 2 GiB exceeds device 1's 1 GiB; leave it out to use all of it");
    let error = own_capacities(&two, &[512 << 20]).unwrap_err().to_string();
    assert!(error.contains("2 devices") && error.contains("options is 1;"), "{error}");
    assert!(matches!(own_capacities(&[own(None)], &[]), Err(LearnError::NoCapacity(0))));
    assert_eq!(own_capacities(&[own(None)], &[1 << 30]).unwrap(), [1 << 30]);
}

#[test]
fn every_window_of_a_users_machine_has_its_own_size() {
    let bars = [0xff_4000_0000, 0xff_8000_0000].map(|address| Bar { address, size: 1 << 30 });
    let learned = Learned { bars: bars.to_vec(), cedt: cedt(), srat: None, dsdt: None, programmed: None };
    let made = Cedt::parse(&learned.own_overrides(&[768 << 20, 256 << 20], Decoders::Open).unwrap()[0]).unwrap();
    let sizes: Vec<_> = made.windows.iter().map(|window| window.size).collect();
    assert_eq!(sizes, [768 << 20, 256 << 20]);
}
