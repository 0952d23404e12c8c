//! The guest kernel's source: Debian's package of a long-term release, unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, Key, remove};
use super::debian::{Debian, Fetch, RELEASE};
use super::error::{IoContext, ProvisionError};
use super::progress::Step;
use super::run::{Limits, new_log, run};

/// Long-term, and in every Debian that is supported: newer series come and go with backports.
const PACKAGE: &str = "linux-source-6.12";
const INSTEAD: &str =
    "name a kernel source tree with --kernel-tree, or a built kernel with --kernel and a corpus with --corpus";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"1";
/// Files and folders in the archive, roughly: the bar's hundred per cent.
const ROUGH_ENTRIES: u64 = 93_000;
const UNPACK_LIMITS: Limits = Limits::minutes(30, 5);

/// The key of the source.
pub(super) fn key() -> Key {
    Key::of(&[("recipe", RECIPE), ("package", PACKAGE.as_bytes()), ("release", RELEASE.as_bytes())])
}

/// The unpacked tree in a finished product.
pub(super) fn in_product(product: &Path) -> PathBuf {
    product.join("tree")
}

/// Fetches and unpacks the source. An archive that the machine has installed is used instead of the network.
pub(super) fn make(cache: &Cache, offline: bool, product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    let log = cache.log("kernel-source")?;
    let installed = Path::new("/usr/src").join(format!("{PACKAGE}.tar.xz"));
    if installed.is_file() {
        new_log(&log)?;
        return untar(&installed, product, &log, step);
    }
    if offline {
        return Err(ProvisionError::Offline { what: "the kernel source".into() });
    }
    let package = product.join("package");
    fs::create_dir(&package).context("create", &package)?;
    let debian = Debian::of_this_machine(cache, "the kernel source", INSTEAD)?;
    let fetch = Fetch { packages: &[PACKAGE], dependencies: false, release: None };
    debian.unpack(&fetch, &package, &log, step)?;
    untar(&package.join("usr/src").join(format!("{PACKAGE}.tar.xz")), product, &log, step)?;
    remove(&package)
}

fn untar(archive: &Path, product: &Path, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    let tree = in_product(product);
    fs::create_dir(&tree).context("create", &tree)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xz", "--verbose", "--no-same-owner", "--strip-components=1", "--file"]).arg(archive);
    tar.arg("--directory").arg(&tree);
    step.phase("unpacking", ROUGH_ENTRIES);
    run("unpacking the kernel source", &mut tar, log, UNPACK_LIMITS, |line| step.advance(1, line))?;
    version(&tree).map(|_| ())
}

/// The version in a source tree's top Makefile, "6.12.117".
pub(super) fn version(tree: &Path) -> Result<String, ProvisionError> {
    let makefile = tree.join("Makefile");
    let text = fs::read_to_string(&makefile).context("read", &makefile)?;
    makefile_version(&text).ok_or_else(|| ProvisionError::Missing {
        path: makefile,
        hint: "it names no kernel version, so this is no kernel source tree".into(),
    })
}

fn makefile_version(text: &str) -> Option<String> {
    let field = |name: &str| {
        text.lines().take(20).find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim()))
    };
    let version: u32 = field("VERSION")?.parse().ok()?;
    let patch_level: u32 = field("PATCHLEVEL")?.parse().ok()?;
    let sub_level: u32 = field("SUBLEVEL")?.parse().ok()?;
    Some(format!("{version}.{patch_level}.{sub_level}{}", field("EXTRAVERSION").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_top_makefile() {
        let text = "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\nNAME = X\n";
        assert_eq!(makefile_version(text).as_deref(), Some("7.3.0-rc2"));
        assert_eq!(
            makefile_version("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n").as_deref(),
            Some("6.12.117")
        );
        assert_eq!(makefile_version("all:\n\tcc main.c\n"), None);
    }
}
