//! Fetches the guest kernel's source: one of Debian's `linux-source` packages, unpacked.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::process::run::RunError;
use crate::process::run::{Limits, run};
use crate::provision::archive::{Archive, Purpose};
use crate::provision::cache::{Cache, Product, list, remove};
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::pinned::Set;
use crate::provision::pins::{Pin, is_version};
use cxl_cram_kit::progress::Step;

/// The prefix of kernel source packages.
pub(in crate::provision) const PREFIX: &str = "linux-source-";
const NEWEST: &str = "newest";
const PINNED: &str = "pinned";
/// The kernel source in the archive's error messages.
pub(in crate::provision) const PURPOSE: Purpose = Purpose {
    what: "the kernel source",
    instead: "name a kernel source tree with --kernel-tree or a built kernel with --kernel",
};
/// The file that records the package of a product.
const PACKAGE_FILE: &str = "package";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"2";
/// Rough number of files and folders in the archive, for the progress bar.
const ROUGH_ENTRIES: u64 = 93_000;
const UNPACK_LIMITS: Limits = Limits::minutes(30, 5);

/// A choice of Debian's kernel source packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KernelPackage {
    /// The pinned package, which the series is for.
    #[default]
    Pinned,
    /// A package by name, `linux-source-7.3`: its newest or the given version.
    Named {
        /// The package's name.
        package: String,
        /// The full version, as Debian writes it.
        version: Option<String>,
    },
    /// The newest package in the archive; without the network, the newest in the cache.
    Newest,
}

impl fmt::Display for KernelPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelPackage::Pinned => f.write_str("the pinned kernel source"),
            KernelPackage::Named { package, version: None } => f.write_str(package),
            KernelPackage::Named { package, version: Some(version) } => write!(f, "{package} {version}"),
            KernelPackage::Newest => f.write_str("a kernel source"),
        }
    }
}

impl FromStr for KernelPackage {
    type Err = String;

    fn from_str(text: &str) -> Result<KernelPackage, String> {
        match text {
            NEWEST => return Ok(KernelPackage::Newest),
            PINNED => return Ok(KernelPackage::Pinned),
            _ => {}
        }
        let (package, version) = match text.split_once('=') {
            Some((package, version)) => (package, Some(version)),
            None => (text, None),
        };
        if series(package).is_none() || version.is_some_and(|version| !is_version(version)) {
            return Err(format!(
                "not a kernel source package; give one such as {PREFIX}6.12 or {PREFIX}6.12=6.12.107-1, or {NEWEST} or \
                 {PINNED}"
            ));
        }
        Ok(KernelPackage::Named { package: package.to_owned(), version: version.map(str::to_owned) })
    }
}

/// The kernel series of a package: (6, 12) for `linux-source-6.12`.
fn series(package: &str) -> Option<(u32, u32)> {
    let (major, minor) = package.strip_prefix(PREFIX)?.split_once('.')?;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    Some((number(major)?, number(minor)?))
}

/// The kernel sources among these names, oldest series first.
pub(in crate::provision) fn sources(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut sources: Vec<String> = names.into_iter().filter(|name| series(name).is_some()).collect();
    sources.sort_by_key(|name| series(name));
    sources
}

/// The kernel sources in the cache, the newest last.
pub(in crate::provision) fn cached(cache: &Cache) -> Vec<Pin> {
    let read = |product: PathBuf| Pin::from_record(&fs::read_to_string(product.join(PACKAGE_FILE)).ok()?);
    let mut products = list(cache.root()).unwrap_or_default();
    // Unfinished products are hidden.
    products.retain(|product| !product.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"."));
    let mut pins: Vec<Pin> =
        products.into_iter().filter_map(read).filter(|pin| series(&pin.package).is_some()).collect();
    pins.sort_by(|one, other| {
        let versions = || deb_version::compare_versions(&one.version, &other.version);
        series(&one.package).cmp(&series(&other.package)).then_with(versions)
    });
    pins
}

/// The package of the source. `fitting` is the key of the patches for it.
pub(in crate::provision) fn set<'a>(pins: &'a [Pin], roots: &'a [&'a str], fitting: String) -> Set<'a> {
    Set {
        step: (2, "kernel source"),
        product: Product::KernelSource,
        recipe: RECIPE,
        purpose: PURPOSE,
        pins,
        roots,
        dependencies: false,
        suite: None,
        candidates: |_| true,
        parts: |all| all,
        fitting,
    }
}

/// The unpacked tree in a finished product.
pub(in crate::provision) fn in_product(product: &Path) -> PathBuf {
    product.join("tree")
}

/// Fetches and unpacks the package.
pub(in crate::provision) fn make(
    cache: &Cache,
    archive: &Archive,
    pins: &[Pin],
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let [pin] = pins else { return Err(ProvisionError::Absent) };
    let record = product.join(PACKAGE_FILE);
    fs::write(&record, pin.record()).context("write", &record)?;
    fetch(cache, archive, pin, None, product, step)
}

/// Fetches the package and unpacks only the top Makefile and those of these files that it has: enough to try patches.
pub(in crate::provision) fn make_part(
    cache: &Cache,
    archive: &Archive,
    pin: &Pin,
    files: &BTreeSet<PathBuf>,
    folder: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    fetch(cache, archive, pin, Some(files), folder, step)
}

fn fetch(
    cache: &Cache,
    archive: &Archive,
    pin: &Pin,
    files: Option<&BTreeSet<PathBuf>>,
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let log = cache.log("kernel-source")?;
    let unpacked = product.join("unpacked");
    fs::create_dir(&unpacked).context("create", &unpacked)?;
    archive.unpack(PURPOSE, std::slice::from_ref(pin), &unpacked, &log, step)?;
    untar(&unpacked.join("usr/src").join(format!("{}.tar.xz", pin.package)), files, product, &log, step)?;
    remove(&unpacked)
}

fn untar(
    archive: &Path,
    files: Option<&BTreeSet<PathBuf>>,
    product: &Path,
    log: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let tree = in_product(product);
    fs::create_dir(&tree).context("create", &tree)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xz", "--verbose", "--no-same-owner", "--strip-components=1", "--file"]).arg(archive);
    tar.arg("--directory").arg(&tree);
    if let Some(files) = files {
        tar.args(["--wildcards", "--no-wildcards-match-slash", "*/Makefile"]);
        tar.args(files.iter().map(|file| Path::new("*").join(file)));
    }
    step.phase("unpacking", if files.is_some() { 0 } else { ROUGH_ENTRIES });
    match run("unpacking the kernel source", tar, log, UNPACK_LIMITS, |line| step.advance(1, line)) {
        // tar fails for files that the patches create, but only after unpacking the others.
        Err(RunError::Failed { .. }) if files.is_some() => {}
        unpacked => unpacked?,
    }
    version(&tree).map(|_| ())
}

/// The version in a source tree's top Makefile, "6.12.117".
pub(super) fn version(tree: &Path) -> Result<String, ProvisionError> {
    let makefile = tree.join("Makefile");
    let text = fs::read_to_string(&makefile).context("read", &makefile)?;
    makefile_version(&text).ok_or_else(|| ProvisionError::NoKernelTree { path: tree.to_owned() })
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
    fn a_package_is_given_by_name_and_version_or_as_newest_or_pinned() {
        let named = |package: &str, version: Option<&str>| KernelPackage::Named {
            package: package.into(),
            version: version.map(str::to_owned),
        };
        assert_eq!("newest".parse(), Ok(KernelPackage::Newest));
        assert_eq!("pinned".parse(), Ok(KernelPackage::Pinned));
        assert_eq!("linux-source-7.3".parse(), Ok(named("linux-source-7.3", None)));
        assert_eq!("linux-source-6.12=6.12.107-1".parse(), Ok(named("linux-source-6.12", Some("6.12.107-1"))));
        for wrong in [
            "",
            "7.3",
            "linux-source",
            "linux-source-7",
            "linux-source-7.3-rt",
            "linux-source-+7.3",
            "x=1",
            "linux-source-7.3=",
            "linux-source-7.3=-o",
            "linux-source-7.3=1 2",
        ] {
            assert!(wrong.parse::<KernelPackage>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_source_is_that_of_the_highest_series() {
        let names = ["linux-source-7.2", "linux-source", "linux-source-6.12", "linux-source-7.11", "linux-source-7.3"];
        assert_eq!(sources(names.map(str::to_owned)).last().map(String::as_str), Some("linux-source-7.11"));
    }

    #[test]
    fn cached_sources_are_sorted_by_version() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        assert_eq!(cached(&cache), []);
        for (package, version) in [("7.9", "7.9.3-1"), ("7.10", "7.10-1"), ("6.12", "6.12.9-1"), ("6.12", "6.12.107-1")]
        {
            let pin = Pin {
                package: format!("{PREFIX}{package}"),
                version: version.into(),
                suite: "trixie".into(),
                sha256: "0a".repeat(32),
            };
            let write = |product: &Path| fs::write(product.join(PACKAGE_FILE), pin.record()).context("write", product);
            let key = crate::provision::pins::key(RECIPE, std::slice::from_ref(&pin));
            cache.product(Product::KernelSource, &key, write).unwrap();
        }
        let versions: Vec<_> = cached(&cache).into_iter().map(|pin| pin.version).collect();
        assert_eq!(versions, ["6.12.9-1", "6.12.107-1", "7.9.3-1", "7.10-1"]);
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
