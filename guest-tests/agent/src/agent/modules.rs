//! Kernel modules, loaded from init.
//!
//! `cxl_acpi` must come after PCI has claimed its resources: before that, the CXL window takes the place of the root
//! port's prefetchable window, and the memory reads zero.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cxl_cram_wire::protocol::{Failure, MODULES_DIR, Module};

/// Loads every module of [`MODULES_DIR`], and returns the result for each.
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
    let parameters = CString::new(parameters).map_err(|_| Failure::new("the parameters contain a zero byte"))?;
    let what = format!("load {}", path.display());
    let file = File::open(path).map_err(|error| Failure::io(&what, &error))?;
    rustix::system::finit_module(&file, &parameters, 0).map_err(|error| Failure::io(&what, &error.into()))
}

/// Unloads a module that is not in use.
pub(super) fn unload(name: &str) -> Result<(), Failure> {
    let what = format!("unload {name}");
    let name = CString::new(name).map_err(|_| Failure::new("the name contains a zero byte"))?;
    // With O_NONBLOCK the call fails for a module in use instead of waiting: delete_module(2).
    rustix::system::delete_module(&name, libc::O_NONBLOCK).map_err(|error| Failure::io(&what, &error.into()))
}
