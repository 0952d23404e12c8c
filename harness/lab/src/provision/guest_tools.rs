//! Provides the guest tools: `cxl` and `daxctl` with their libraries, and busybox for a shell.
//!
//! They come from Debian's packages. Only the files that the programs need to start are kept, for a small initramfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{Archive, Purpose};
use super::cache::{Cache, Product, remove};
use super::elf::closure;
use super::error::{IoContext, ProvisionError};
use super::pinned::Set;
use super::pins::{Pin, records};
use cxl_cram_kit::progress::Step;

/// The packages with the programs. Their dependencies are fetched too.
pub(super) const ROOTS: [&str; 3] = ["cxl", "daxctl", "busybox-static"];
const PROGRAMS: [&str; 3] = ["usr/bin/busybox", "usr/bin/cxl", "usr/bin/daxctl"];
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"3";
/// The tools in the archive's error messages.
pub(super) const PURPOSE: Purpose = Purpose {
    what: "the guest's tools",
    instead: "name a folder that holds usr/bin/cxl and its libraries with --guest-tools",
};

/// The packages of the tools.
pub(super) fn set(pins: &[Pin]) -> Set<'_> {
    Set {
        step: (5, "guest tools"),
        product: Product::GuestTools,
        recipe: RECIPE,
        purpose: PURPOSE,
        pins,
        roots: &ROOTS,
        dependencies: true,
        suite: None,
        candidates: |_| true,
        parts: |all| all,
        fitting: String::new(),
    }
}

/// Checks a user's folder of tools.
pub(super) fn check_user_folder(folder: &Path) -> Result<(), ProvisionError> {
    super::existing(&folder.join("usr/bin/cxl"), "--guest-tools must name the folder above usr").map(|_| ())
}

/// The root folder in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join("root")
}

/// Links busybox to the names of its applets, except where another program has the name.
fn link_applets(folder: &Path) -> Result<(), ProvisionError> {
    let busybox = folder.join("busybox");
    let listed = Command::new(&busybox).arg("--list").output().context("run", &busybox)?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines() {
        let link = folder.join(applet);
        if !link.exists() {
            symlink("busybox", &link).context("make", &link)?;
        }
    }
    Ok(())
}

/// Fetches the packages and keeps the files that the programs need.
pub(super) fn make(
    cache: &Cache,
    archive: &Archive,
    pins: &[Pin],
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let whole = product.join("packages");
    fs::create_dir(&whole).context("create", &whole)?;
    archive.unpack(PURPOSE, pins, &whole, &cache.log("guest-tools")?, step)?;
    let root = in_product(product);
    for (place, file) in closure(&whole, &PROGRAMS)? {
        let place = root.join(place);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).context("create", folder)?;
        }
        fs::copy(&file, &place).context("keep", &file)?;
    }
    remove(&whole)?;
    link_applets(&root.join("usr/bin"))?;
    let listed = product.join("packages");
    fs::write(&listed, records(pins)).context("write", &listed)
}
