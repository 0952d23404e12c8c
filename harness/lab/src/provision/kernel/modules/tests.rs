use super::*;

/// A relocatable ELF file with nothing but a `.modinfo`.
fn module(depends: &str, release: &str) -> Vec<u8> {
    let info = format!("license=GPL\0depends={depends}\0vermagic={release} SMP mod_unload \0");
    let names = b"\0.modinfo\0.shstrtab\0";
    let (info_at, names_at) = (64, 64 + info.len());
    let sections_at = names_at + names.len();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([1_u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, sections_at as u64].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 0, 0, 64, 3, 2].map(u16::to_le_bytes).concat());
    file.extend(info.as_bytes());
    file.extend(names);
    for (name, kind, at, bytes) in [(0_u32, 0_u32, 0, 0), (1, 1, info_at, info.len()), (10, 3, names_at, names.len())] {
        file.extend([name, kind].map(u32::to_le_bytes).concat());
        file.extend([0, 0, at as u64, bytes as u64].map(u64::to_le_bytes).concat());
        file.extend([0_u32; 2].map(u32::to_le_bytes).concat());
        file.extend([1_u64, 0].map(u64::to_le_bytes).concat());
    }
    file
}

struct Fixture {
    folder: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&folder.path().join("cache"))).unwrap();
        Fixture { folder, cache }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn add(&self, path: &str, depends: &str) -> PathBuf {
        self.write(path, &module(depends, "6.12.1"))
    }

    /// The names of the modules that are found, in load order.
    fn find(&self) -> Result<Vec<String>, ProvisionError> {
        let found = find(&self.cache, &self.root(), "6.12.1")?;
        Ok(found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }
}

#[test]
fn each_module_comes_after_its_dependencies_and_cxl_acpi_last() {
    let fixture = Fixture::new();
    fixture.add("drivers/cxl/cxl_acpi.ko", "cxl-port,cxl_core");
    fixture.add("drivers/cxl/cxl_port.ko", "cxl_core");
    fixture.add("drivers/cxl/core/cxl_core.ko", "einj");
    fixture.add("drivers/acpi/einj.ko", "");
    fixture.add("drivers/dax/kmem.ko", "dax");
    fixture.add("drivers/dax/dax.ko", "");
    fixture.add("drivers/char/virtio_console.ko", "");
    fixture.add("net/unrelated.ko", "no_such_module");
    let expected = ["virtio_console.ko", "dax.ko", "kmem.ko", "einj.ko", "cxl_core.ko", "cxl_port.ko", "cxl_acpi.ko"];
    assert_eq!(fixture.find().unwrap(), expected);
}

#[test]
fn on_demand_modules_are_found_but_not_loaded_at_boot() {
    let fixture = Fixture::new();
    fixture.add("drivers/cxl/cxl_acpi.ko", "");
    fixture.add("drivers/cxl/cxl-cram.ko", "cxl_core");
    fixture.add("drivers/cxl/core/cxl_core.ko", "");
    assert_eq!(fixture.find().unwrap(), ["cxl_core.ko", "cxl-cram.ko", "cxl_acpi.ko"]);
    let found = find(&fixture.cache, &fixture.root(), "6.12.1").unwrap();
    let (at_boot, on_demand) = split(found);
    assert_eq!((at_boot.len(), on_demand.len()), (2, 1));
    assert!(on_demand[0].ends_with("cxl-cram.ko"));
}

#[test]
fn modules_are_found_from_the_root_from_lib_modules_and_in_the_folder() {
    for below in ["", "6.12.1/kernel", "lib/modules/6.12.1/kernel", "usr/lib/modules/6.12.1/kernel"] {
        let fixture = Fixture::new();
        fixture.add(format!("{below}/drivers/cxl/cxl_acpi.ko").trim_start_matches('/'), "");
        if !below.is_empty() {
            let other = below.replace("6.12.1", "5.10.0");
            fixture.write(&format!("{other}/cxl_acpi.ko"), &module("", "5.10.0"));
        }
        assert_eq!(fixture.find().unwrap(), ["cxl_acpi.ko"], "{below}");
    }
}

#[test]
fn compressed_modules_are_decompressed_into_the_cache() {
    let fixture = Fixture::new();
    let plain = module("cxl_core", "6.12.1");
    for (program, file) in [("xz", "cxl_acpi.ko"), ("gzip", "cxl_core.ko")] {
        let content = if file == "cxl_acpi.ko" { plain.clone() } else { module("", "6.12.1") };
        let path = fixture.write(file, &content);
        assert!(Command::new(program).arg(path).status().unwrap().success());
    }
    let found = find(&fixture.cache, &fixture.root(), "6.12.1").unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|path| path.starts_with(fixture.cache.root())), "{found:?}");
    assert_eq!(fs::read(&found[1]).unwrap(), plain);
    assert_eq!(find(&fixture.cache, &fixture.root(), "6.12.1").unwrap(), found);
}

#[test]
fn an_updated_module_takes_precedence_over_the_kernels_own() {
    let fixture = Fixture::new();
    fixture.add("kernel/drivers/cxl/cxl_acpi.ko", "no_such_module");
    fixture.add("updates/cxl_acpi.ko", "");
    assert_eq!(fixture.find().unwrap(), ["cxl_acpi.ko"]);
}

#[test]
fn a_folder_without_cxl_acpi_is_refused_unless_the_kernel_has_it_built_in() {
    let fixture = Fixture::new();
    fixture.add("kernel/drivers/dax/kmem.ko", "");
    let error = fixture.find().unwrap_err().to_string();
    assert!(error.contains("cxl_acpi.ko is missing") && error.contains("CONFIG_CXL_ACPI=m"), "{error}");
    fixture.write("modules.builtin", b"kernel/drivers/cxl/cxl_acpi.ko\n");
    assert_eq!(fixture.find().unwrap(), ["kmem.ko"]);
}

#[test]
fn a_missing_dependency_names_both_modules() {
    let fixture = Fixture::new();
    fixture.add("cxl_acpi.ko", "cxl_core");
    let error = fixture.find().unwrap_err().to_string();
    assert!(error.contains("cxl_acpi.ko") && error.contains("cxl_core"), "{error}");
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let fixture = Fixture::new();
    fixture.write("cxl_acpi.ko", &module("", "7.3.4"));
    let error = fixture.find().unwrap_err().to_string();
    assert!(error.contains("built for Linux 7.3.4, but the kernel is 6.12.1"), "{error}");
    assert_eq!(find(&fixture.cache, &fixture.root(), "").unwrap().len(), 1);
}

#[test]
fn a_dependency_loop_ends_the_search() {
    let fixture = Fixture::new();
    fixture.add("cxl_acpi.ko", "a");
    fixture.add("a.ko", "cxl_acpi");
    assert_eq!(fixture.find().unwrap(), ["a.ko", "cxl_acpi.ko"]);
}

#[test]
fn a_file_that_is_not_a_module_is_refused_and_named() {
    for bytes in [&b""[..], b"\x7fELF", b"text", &module("", "6.12.1")[..100]] {
        let fixture = Fixture::new();
        fixture.write("cxl_acpi.ko", bytes);
        let error = fixture.find().unwrap_err().to_string();
        assert!(error.contains("cxl_acpi.ko is not usable"), "{error}");
    }
    let fixture = Fixture::new();
    fixture.write("cxl_acpi.ko.xz", b"not compressed");
    let error = fixture.find().unwrap_err().to_string();
    assert!(error.contains("xz cannot decompress it"), "{error}");
}
