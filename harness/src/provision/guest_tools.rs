//! Tools for inside the guest: `cxl` and `daxctl` with the libraries they need, and busybox for a shell.
//!
//! They come from Debian's packages, cut down to what the programs need to start, so that the initramfs stays small.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, Key, remove};
use super::debian::{Debian, Fetch, RELEASE};
use super::elf::closure;
use super::error::{IoContext, ProvisionError};
use super::progress::Step;

const PACKAGES: [&str; 3] = ["busybox-static", "cxl", "daxctl"];
const PROGRAMS: [&str; 3] = ["usr/bin/busybox", "usr/bin/cxl", "usr/bin/daxctl"];
const INSTEAD: &str = "name a folder that holds usr/bin/cxl and its libraries with --guest-tools";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"2";

/// The key of the tools.
pub(super) fn key() -> Key {
    Key::of(&[("recipe", RECIPE), ("packages", PACKAGES.join(" ").as_bytes()), ("release", RELEASE.as_bytes())])
}

/// The root folder in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join("root")
}

/// Gives busybox the names of the programs it can be, where there is no other of that name.
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

/// Fetches the packages and keeps what the programs need.
pub(super) fn make(cache: &Cache, product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    let debian = Debian::of_this_machine(cache, "the guest's tools", INSTEAD)?;
    let whole = product.join("packages");
    fs::create_dir(&whole).context("create", &whole)?;
    let fetch = Fetch { packages: &PACKAGES, dependencies: true, release: None };
    let names = debian.unpack(&fetch, &whole, &cache.log("guest-tools")?, step)?;
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
    let listed = product.join("package-names");
    fs::write(&listed, names.join("\n") + "\n").context("write", &listed)
}
