//! Provides UEFI firmware for the machine: OVMF, from Debian's package.

use std::fs;
use std::path::{Path, PathBuf};

use cxl_cram_kit::progress::Step;

use super::archive::{Archive, Purpose};
use super::cache::{Cache, Product, remove};
use super::error::{IoContext, ProvisionError};
use super::pinned::Set;
use super::pins::{Pin, records};

const ROOTS: [&str; 1] = ["ovmf"];
/// The firmware with its variables in one file, for QEMU's `-bios`: what a guest sets does not outlive it.
const IMAGE: &str = "usr/share/ovmf/OVMF.fd";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"1";
/// The firmware in the archive's error messages.
const PURPOSE: Purpose = Purpose { what: "OVMF", instead: "name its file with --firmware" };

/// The package of the firmware.
pub(super) fn set(pins: &[Pin]) -> Set<'_> {
    Set {
        step: (1, "OVMF"),
        product: Product::Firmware,
        recipe: RECIPE,
        purpose: PURPOSE,
        pins,
        roots: &ROOTS,
        dependencies: false,
        suite: None,
        candidates: |_| true,
        parts: |all| all.into_iter().filter(|pin| pin.package == ROOTS[0]).collect(),
        fitting: String::new(),
    }
}

/// The firmware in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join("OVMF.fd")
}

/// Fetches the package and keeps the firmware.
pub(super) fn make(
    cache: &Cache,
    archive: &Archive,
    pins: &[Pin],
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let whole = product.join("unpacked");
    fs::create_dir(&whole).context("create", &whole)?;
    archive.unpack(PURPOSE, pins, &whole, &cache.log("firmware")?, step)?;
    let image = whole.join(IMAGE);
    if !image.is_file() {
        let hint = "the package has changed its layout; name the firmware's file with --firmware".into();
        return Err(ProvisionError::Missing { path: IMAGE.into(), hint });
    }
    fs::copy(&image, in_product(product)).context("keep", &image)?;
    let listed = product.join("packages");
    fs::write(&listed, records(pins)).context("write", &listed)?;
    remove(&whole)
}
