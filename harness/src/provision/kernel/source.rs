//! The guest kernel's source: one of Debian's `linux-source` packages, unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::provision::cache::{Cache, Key, list, remove};
use crate::provision::debian::{Debian, Fetch, RELEASE};
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::progress::Step;
use crate::provision::run::{Limits, new_log, run};

/// Long-term, and in every Debian that is supported: newer series come and go with backports.
const DEFAULT: &str = "linux-source-6.12";
const PREFIX: &str = "linux-source-";
const NEWEST: &str = "newest";
const INSTEAD: &str =
    "name a kernel source tree with --kernel-tree, or a built kernel with --kernel and a corpus with --corpus";
/// Which package a product was made from.
const PACKAGE_FILE: &str = "package";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"1";
/// Files and folders in the archive, roughly: the bar's hundred per cent.
const ROUGH_ENTRIES: u64 = 93_000;
const UNPACK_LIMITS: Limits = Limits::minutes(30, 5);

/// Which of Debian's kernel source packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelPackage {
    /// By name: `linux-source-6.12`.
    Named(String),
    /// The newest there is; without the network the newest in the cache.
    Newest,
}

impl Default for KernelPackage {
    fn default() -> KernelPackage {
        KernelPackage::Named(DEFAULT.into())
    }
}

impl FromStr for KernelPackage {
    type Err = String;

    fn from_str(text: &str) -> Result<KernelPackage, String> {
        match text {
            NEWEST => Ok(KernelPackage::Newest),
            _ if series(text).is_some() => Ok(KernelPackage::Named(text.to_owned())),
            _ => Err(format!("name a package such as {DEFAULT}, or say {NEWEST}")),
        }
    }
}

/// The series of the kernel that a package holds: (6, 12) of `linux-source-6.12`.
fn series(package: &str) -> Option<(u32, u32)> {
    let (major, minor) = package.strip_prefix(PREFIX)?.split_once('.')?;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    Some((number(major)?, number(minor)?))
}

/// The names among these that are kernel sources, oldest series first.
fn sources(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut sources: Vec<String> = names.into_iter().filter(|name| series(name).is_some()).collect();
    sources.sort_by_key(|name| series(name));
    sources
}

/// The newest package to be had.
pub(in crate::provision) fn newest(cache: &Cache, offline: bool, step: &mut Step) -> Result<String, ProvisionError> {
    let names = if offline {
        let read = |product: PathBuf| fs::read_to_string(product.join(PACKAGE_FILE)).ok();
        list(cache.root())?.into_iter().filter_map(read).collect()
    } else {
        Debian::of_this_machine(cache, "the kernel source", INSTEAD)?.names(PREFIX, &log(cache)?, step)?
    };
    sources(names).pop().ok_or(ProvisionError::Offline { what: "a kernel source".into() })
}

/// The key of the unpacked package.
pub(in crate::provision) fn key(package: &str) -> Key {
    Key::of(&[("recipe", RECIPE), ("package", package.as_bytes()), ("release", RELEASE.as_bytes())])
}

/// The unpacked tree in a finished product.
pub(in crate::provision) fn in_product(product: &Path) -> PathBuf {
    product.join("tree")
}

fn log(cache: &Cache) -> Result<PathBuf, ProvisionError> {
    cache.log("kernel-source")
}

/// Fetches and unpacks the package. An archive that the machine has installed is used instead of the network.
pub(in crate::provision) fn make(
    cache: &Cache,
    package: &str,
    offline: bool,
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let log = log(cache)?;
    let record = product.join(PACKAGE_FILE);
    fs::write(&record, package).context("write", &record)?;
    let installed = Path::new("/usr/src").join(format!("{package}.tar.xz"));
    if installed.is_file() {
        new_log(&log)?;
        return untar(&installed, product, &log, step);
    }
    if offline {
        return Err(ProvisionError::Offline { what: package.into() });
    }
    let debian = Debian::of_this_machine(cache, "the kernel source", INSTEAD)?;
    let have = sources(debian.names(PREFIX, &log, step)?);
    if !have.iter().any(|name| name == package) {
        return Err(ProvisionError::NoSuchPackage { package: package.into(), have: have.join(", ") });
    }
    let unpacked = product.join("unpacked");
    fs::create_dir(&unpacked).context("create", &unpacked)?;
    let fetch = Fetch { packages: &[package], dependencies: false, release: None };
    debian.unpack(&fetch, &unpacked, &log, step)?;
    untar(&unpacked.join("usr/src").join(format!("{package}.tar.xz")), product, &log, step)?;
    remove(&unpacked)
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
    fn a_package_is_named_as_debian_names_it_or_is_the_newest() {
        assert_eq!("newest".parse(), Ok(KernelPackage::Newest));
        assert_eq!("linux-source-7.3".parse(), Ok(KernelPackage::Named("linux-source-7.3".into())));
        for wrong in ["", "7.3", "linux-source", "linux-source-7", "linux-source-7.3-rt", "linux-source-+7.3", "x=1"] {
            assert!(wrong.parse::<KernelPackage>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_of_the_names_is_that_of_the_highest_series() {
        let names = ["linux-source-7.2", "linux-source", "linux-source-6.12", "linux-source-7.11", "linux-source-7.3"];
        assert_eq!(sources(names.map(str::to_owned)).last().map(String::as_str), Some("linux-source-7.11"));
    }

    #[test]
    fn without_the_network_the_newest_is_the_newest_in_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        let mut step = crate::provision::Progress::quiet().step(1, 1, "x");
        let error = newest(&cache, true, &mut step).unwrap_err().to_string();
        assert!(error.contains("run once without --offline"), "{error}");
        for package in ["linux-source-7.9", "linux-source-7.10", "linux-source-6.12"] {
            let write = |product: &Path| fs::write(product.join(PACKAGE_FILE), package).context("write", product);
            cache.product("kernel-source", &key(package), write).unwrap();
        }
        assert_eq!(newest(&cache, true, &mut step).unwrap(), "linux-source-7.10");
    }

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
