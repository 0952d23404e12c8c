//! Fills `/lib/modules/RELEASE` in the guest, where `modprobe`, and libkmod in `daxctl` and `cxl`, look up modules.
//!
//! The agent loads its modules by path and needs none of this. `daxctl reconfigure-device` asks libkmod for the driver of
//! the new mode, and fails if libkmod knows it neither as a file nor as built in.

mod index;

use std::collections::{BTreeMap, BTreeSet};

use elf::ElfBytes;
use elf::endian::AnyEndian;

use self::index::index;

/// The folder of the modules, below that of the release.
pub(super) const FOLDER: &str = "kernel";

/// The modules that the guest's tools look up, as named in `modules.builtin`. If the kernel's own list is unknown, those
/// that are not among its modules are assumed to be built in, because the guest could not load them from anywhere.
const ASKED_FOR: [&str; 9] = [
    "kernel/drivers/cxl/core/cxl_core.ko",
    "kernel/drivers/cxl/cxl_acpi.ko",
    "kernel/drivers/cxl/cxl_mem.ko",
    "kernel/drivers/cxl/cxl_pci.ko",
    "kernel/drivers/cxl/cxl_port.ko",
    "kernel/drivers/dax/dax.ko",
    "kernel/drivers/dax/dax_cxl.ko",
    "kernel/drivers/dax/device_dax.ko",
    "kernel/drivers/dax/kmem.ko",
];

/// A module and its `.modinfo`.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// The file name: `cxl_acpi.ko`.
    pub(super) file: String,
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Module {
    /// Reads `.modinfo`. An invalid file gets no dependencies or aliases; the kernel will report it on loading.
    pub(super) fn new(file: &str, content: &[u8]) -> Self {
        let mut module = Self { file: file.to_owned(), ..Self::default() };
        let Ok(elf) = ElfBytes::<AnyEndian>::minimal_parse(content) else { return module };
        let Ok(Some(section)) = elf.section_header_by_name(".modinfo") else { return module };
        let Ok((fields, _)) = elf.section_data(&section) else { return module };
        for field in fields.split(|byte| *byte == 0).map(String::from_utf8_lossy) {
            match field.split_once('=') {
                Some(("depends", names)) => {
                    module.depends = names.split(',').filter(|name| !name.is_empty()).map(name_of).collect();
                }
                Some(("alias", alias)) => module.aliases.push(alias.to_owned()),
                _ => {}
            }
        }
        module
    }

    fn name(&self) -> String {
        name_of(&self.file)
    }

    fn path(&self) -> String {
        format!("{FOLDER}/{}", self.file)
    }
}

/// The kernel's name of a module: `hwpoison_inject` for `kernel/mm/hwpoison-inject.ko`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The files that `depmod` would create, by name. The modules must be in an order in which they can be loaded.
///
/// `builtin` is the kernel's `modules.builtin`, if known.
pub(super) fn files(modules: &[Module], builtin: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
    let places: BTreeMap<String, usize> = modules.iter().map(Module::name).zip(0..).collect();
    let builtin: Vec<&str> = match builtin {
        Some(list) => list.lines().collect(),
        None => ASKED_FOR.into_iter().filter(|path| !places.contains_key(&name_of(path))).collect(),
    };
    let dependencies: Vec<(String, String)> =
        modules.iter().map(Module::name).zip(dependency_lines(modules, &places)).collect();
    let aliases: Vec<(&str, String)> =
        modules.iter().flat_map(|module| module.aliases.iter().map(|alias| (alias.as_str(), module.name()))).collect();
    let builtin_names: Vec<String> = builtin.iter().copied().map(name_of).collect();

    let lines = |lines: Vec<String>| lines.into_iter().flat_map(|line| (line + "\n").into_bytes()).collect();
    vec![
        ("modules.alias", lines(aliases.iter().map(|(alias, name)| format!("alias {alias} {name}")).collect())),
        ("modules.alias.bin", index(aliases.iter().map(|(alias, name)| (*alias, name.as_str())))),
        ("modules.builtin", lines(builtin.iter().copied().map(str::to_owned).collect())),
        ("modules.builtin.alias.bin", index([])),
        ("modules.builtin.bin", index(builtin_names.iter().map(|name| (name.as_str(), "")))),
        ("modules.dep", lines(dependencies.iter().map(|(_, line)| line.clone()).collect())),
        ("modules.dep.bin", index(dependencies.iter().map(|(name, line)| (name.as_str(), line.as_str())))),
        ("modules.symbols.bin", index([])),
    ]
}

/// A line for each module: its path, a colon, and the paths of its dependencies in reverse load order.
fn dependency_lines(modules: &[Module], places: &BTreeMap<String, usize>) -> Vec<String> {
    let mut needed: Vec<BTreeSet<usize>> = Vec::new();
    for module in modules {
        let direct = module.depends.iter().filter_map(|name| places.get(name).copied());
        let all = direct.flat_map(|place| needed.get(place).cloned().unwrap_or_default().into_iter().chain([place]));
        let all = all.collect();
        needed.push(all);
    }
    let line = |(module, needed): (&Module, BTreeSet<usize>)| {
        let paths = needed.into_iter().rev().map(|place| format!(" {}", modules[place].path()));
        format!("{}:{}", module.path(), paths.collect::<String>())
    };
    modules.iter().zip(needed).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(file: &str, depends: &[&str], aliases: &[&str]) -> Module {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Module { file: file.into(), depends: owned(depends), aliases: owned(aliases) }
    }

    fn text(files: &[(&str, Vec<u8>)], name: &str) -> String {
        let (_, content) = files.iter().find(|file| file.0 == name).unwrap();
        String::from_utf8(content.clone()).unwrap()
    }

    #[test]
    fn dependencies_are_listed_in_reverse_load_order() {
        let modules = [
            module("cxl_core.ko", &[], &[]),
            module("cxl-port.ko", &["cxl_core"], &["cxl:t3*"]),
            module("cxl_acpi.ko", &["cxl_port", "built_in"], &["acpi*:ACPI0017:*"]),
        ];
        let files = files(&modules, Some("kernel/drivers/dax/kmem.ko\n"));
        assert_eq!(
            text(&files, "modules.dep"),
            "kernel/cxl_core.ko:\n\
             kernel/cxl-port.ko: kernel/cxl_core.ko\n\
             kernel/cxl_acpi.ko: kernel/cxl-port.ko kernel/cxl_core.ko\n"
        );
        assert_eq!(text(&files, "modules.alias"), "alias cxl:t3* cxl_port\nalias acpi*:ACPI0017:* cxl_acpi\n");
        assert_eq!(text(&files, "modules.builtin"), "kernel/drivers/dax/kmem.ko\n");
    }

    #[test]
    fn without_a_list_missing_modules_are_taken_as_built_in() {
        let files = files(&[module("device_dax.ko", &[], &[])], None);
        let builtin = text(&files, "modules.builtin");
        assert!(builtin.lines().any(|line| line == "kernel/drivers/dax/kmem.ko"), "{builtin}");
        assert!(!builtin.contains("device_dax"), "{builtin}");
        let (_, bytes) = files.iter().find(|file| file.0 == "modules.builtin.bin").unwrap();
        assert!(*bytes == index(builtin.lines().map(name_of).collect::<Vec<_>>().iter().map(|name| (&name[..], ""))));
    }

    #[test]
    fn an_invalid_module_has_a_name_only() {
        let module = Module::new("broken.ko", b"\x7fELF and then nothing");
        assert_eq!((module.name().as_str(), module.depends.len(), module.aliases.len()), ("broken", 0, 0));
    }
}
