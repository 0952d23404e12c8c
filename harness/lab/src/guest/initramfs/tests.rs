use std::io::Read;
use std::os::unix::fs::symlink;

use super::*;
use crate::guest::acpi::{Cedt, Header, Window};

fn sources() -> (tempfile::TempDir, Initramfs) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("agent"), b"the agent").unwrap();
    fs::write(path("b.ko"), b"module b").unwrap();
    fs::write(path("a.ko"), b"module a").unwrap();
    fs::write(path("later.ko"), b"later").unwrap();
    fs::create_dir_all(path("tools/usr/bin")).unwrap();
    fs::create_dir_all(path("tools/lib64")).unwrap();
    fs::write(path("tools/usr/bin/cxl"), b"#!").unwrap();
    fs::set_permissions(path("tools/usr/bin/cxl"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path("tools/lib64/data"), b"").unwrap();
    symlink("cxl", path("tools/usr/bin/link")).unwrap();
    let initramfs = Initramfs {
        agent: path("agent"),
        modules: vec![path("b.ko"), path("a.ko")],
        on_demand: vec![path("later.ko")],
        release: "6.12.0-test".into(),
        builtin: None,
        tools: vec![path("tools")],
        tables: Vec::new(),
    };
    (directory, initramfs)
}

/// Name, mode, content.
type Entry = (String, u32, Vec<u8>);

/// What is in the first archive, and the bytes after it.
fn unpack(mut bytes: &[u8]) -> (Vec<Entry>, &[u8]) {
    let mut entries = Vec::new();
    loop {
        let mut reader = newc::Reader::new(bytes).unwrap();
        if reader.entry().is_trailer() {
            return (entries, reader.finish().unwrap());
        }
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        entries.push((name, mode, content));
        bytes = reader.finish().unwrap();
    }
}

#[test]
fn the_archive_holds_the_agent_the_modules_in_order_and_the_tools() {
    let (_directory, initramfs) = sources();
    let bytes = initramfs.build().unwrap();
    let (entries, _) = unpack(&bytes);
    let find = |name: &str| {
        let entry = entries.iter().find(|entry| entry.0 == name).unwrap_or_else(|| panic!("no {name}"));
        (entry.1, &entry.2[..])
    };
    assert_eq!(find("init"), (0o100_755, &b"the agent"[..]));
    assert_eq!(find("modules/00-b.ko"), (0o100_644, &b"module b"[..]));
    assert_eq!(find("modules/01-a.ko"), (0o100_644, &b"module a"[..]));
    assert_eq!(find("modules-on-demand/later.ko"), (0o100_644, &b"later"[..]));
    assert_eq!(find("usr/bin/cxl"), (0o100_755, &b"#!"[..]));
    assert_eq!(find("usr/bin/link"), (0o120_777, &b"cxl"[..]));
    assert_eq!(find("usr/bin/cxl-cram-guest"), (0o120_777, &b"/init"[..]));
    assert_eq!(find("dev/console").0, 0o020_600);
    assert_eq!(find("bin"), (0o120_777, &b"usr/bin"[..]));
    assert_eq!(find("lib64"), (0o040_755, &b""[..]), "a directory in the tools replaces the link");
    for (at, (name, ..)) in entries.iter().enumerate() {
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(entries[..at].iter().any(|entry| entry.0 == parent), "{parent} comes before {name}");
        }
    }
}

#[test]
fn modprobe_finds_the_modules_by_the_release() {
    let (directory, mut initramfs) = sources();
    let list = directory.path().join("modules.builtin");
    fs::write(&list, "kernel/drivers/dax/device_dax.ko\n").unwrap();
    initramfs.builtin = Some(list);
    let found = |initramfs: &Initramfs| {
        let bytes = initramfs.build().unwrap();
        let entries = unpack(&bytes).0;
        let below = |(name, _, content): Entry| Some((name.strip_prefix("usr/lib/modules/")?.to_owned(), content));
        entries.into_iter().filter_map(below).collect::<BTreeMap<_, _>>()
    };
    let files = found(&initramfs);
    assert_eq!(files["6.12.0-test/kernel/a.ko"], b"/modules/01-a.ko");
    assert_eq!(files["6.12.0-test/kernel/later.ko"], b"/modules-on-demand/later.ko");
    assert_eq!(files["6.12.0-test/modules.builtin"], b"kernel/drivers/dax/device_dax.ko\n");
    assert_eq!(files["6.12.0-test/modules.dep"], b"kernel/b.ko:\nkernel/a.ko:\nkernel/later.ko:\n");

    fs::create_dir_all(directory.path().join("tools/usr/lib/modules/6.12.0-test")).unwrap();
    assert!(!found(&initramfs).keys().any(|name| name.contains("modules.dep")), "the tools' own are left alone");
    initramfs.release.clear();
    assert!(!found(&initramfs).keys().any(|name| name.contains("modules.dep")), "no release, no place");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (_one, first) = sources();
    let (_two, second) = sources();
    assert_eq!(first.build().unwrap(), second.build().unwrap());
}

#[test]
fn acpi_overrides_come_first_and_uncompressed() {
    let (_directory, mut initramfs) = sources();
    let header = Header {
        signature: *b"CEDT",
        revision: 1,
        oem_id: *b"BOCHS ",
        oem_table_id: *b"BXPC    ",
        oem_revision: 2,
        creator_id: *b"BXPC",
        creator_revision: 1,
    };
    let cedt = Cedt { bridges: Vec::new(), windows: vec![Window::volatile(1 << 40, 1 << 30, 12)] };
    initramfs.tables = vec![cedt.to_table(header)];
    let bytes = initramfs.build().unwrap();
    let (early, rest) = unpack(&bytes);
    let (name, _, content) = early.last().unwrap();
    assert_eq!(name, "kernel/firmware/acpi/CEDT.aml");
    assert_eq!(Cedt::parse(&Table::parse(content).unwrap()).unwrap(), cedt);
    let padding = rest.iter().position(|&byte| byte != 0).unwrap();
    assert_eq!((bytes.len() - rest.len() + padding) % ALIGN, 0);
    assert!(unpack(&rest[padding..]).0.iter().any(|entry| entry.0 == "init"));
}

#[test]
fn a_file_that_does_not_fit_the_archive_is_named() {
    let (directory, mut initramfs) = sources();
    let socket = directory.path().join("tools/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(initramfs.build(), Err(InitramfsError::Unfit { path, .. }) if path == socket));
    initramfs.tools = vec![directory.path().join("absent")];
    assert!(matches!(initramfs.build(), Err(InitramfsError::Read { .. })));
}
