//! Kernel modules, loaded from init.
//! `cxl_acpi` must come after PCI has claimed its resources: before that, the CXL window takes the place of the root
//! port's prefetchable window, and the memory reads zero.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::protocol::{Failure, Module};

/// Where the initramfs keeps modules. They are loaded in the order of their names.
pub const MODULES_DIR: &str = "/modules";

/// Where it keeps those that are loaded only when they are asked for, by their names: `cxl_cram.ko`.
pub const ON_DEMAND_DIR: &str = "/modules-on-demand";

/// Loads every module of [`MODULES_DIR`], and tells what became of each.
pub(super) fn load_all() -> Vec<Module> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(MODULES_DIR).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| Module {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            failure: load(&path, "").err(),
        })
        .collect()
}

/// Loads one module.
pub(super) fn load(path: &Path, parameters: &str) -> Result<(), Failure> {
    let parameters = CString::new(parameters).map_err(|_| Failure::new("give parameters without a zero byte"))?;
    let what = format!("load {}", path.display());
    let file = File::open(path).map_err(|error| Failure::io(&what, &error))?;
    rustix::system::finit_module(&file, &parameters, 0).map_err(|error| Failure::io(&what, &error.into()))
}

/// Unloads a module that nobody uses.
pub(super) fn unload(name: &str) -> Result<(), Failure> {
    let what = format!("unload {name}");
    let name = CString::new(name).map_err(|_| Failure::new("give a name without a zero byte"))?;
    // With O_NONBLOCK a module in use is refused instead of waited for: delete_module(2).
    rustix::system::delete_module(&name, libc::O_NONBLOCK).map_err(|error| Failure::io(&what, &error.into()))
}
