//! A distribution's own kernel, as it is: no source, no build.
//!
//! Debian's `linux-image-amd64` names the current kernel of a suite. Its packages hold the image, the configuration and all
//! modules; the product keeps the image and the modules that a guest needs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use cxl_cram_kit::progress::Step;

use super::{Kernel, Remedies, image, modules};
use crate::provision::archive::{Archive, BACKPORTS, Purpose};
use crate::provision::cache::{Cache, Product, files_below, remove};
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::pinned::Set;
use crate::provision::pins::{Pin, Pins, records};

/// The package that depends on a suite's current kernel.
const ROOTS: [&str; 1] = ["linux-image-amd64"];
/// The start of the package that names a kernel, and of all its packages.
const MAIN: &str = "linux-image-";
const PARTS: [&str; 4] = [MAIN, "linux-binary-", "linux-modules-", "linux-base-"];
const FLAVOUR: &str = "-amd64";
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"1";
/// The kernel in the archive's error messages.
const PURPOSE: Purpose =
    Purpose { what: "the distribution's kernel", instead: "name a kernel and its modules with --kernel and --modules" };
/// The names of the modules in a product, in load order.
const ORDER: &str = "load-order";

/// A distribution whose kernel can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// The kernel of Debian's stable release
    Debian,
    /// The newest kernel that Debian offers for its stable release
    DebianBackports,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Distribution; 2] = [Distribution::Debian, Distribution::DebianBackports];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Debian => "debian",
            Distribution::DebianBackports => "debian-backports",
        }
    }

    /// The title of its step, and its name among the pins.
    pub fn title(self) -> &'static str {
        match self {
            Distribution::Debian => "Debian kernel",
            Distribution::DebianBackports => "backports kernel",
        }
    }

    /// Its packages in a pin file.
    pub fn pinned(self, pins: &Pins) -> &Vec<Pin> {
        match self {
            Distribution::Debian => &pins.kernel_debian,
            Distribution::DebianBackports => &pins.kernel_debian_backports,
        }
    }

    /// Its packages in a pin file, to change them.
    pub fn pinned_mut(self, pins: &mut Pins) -> &mut Vec<Pin> {
        match self {
            Distribution::Debian => &mut pins.kernel_debian,
            Distribution::DebianBackports => &mut pins.kernel_debian_backports,
        }
    }

    /// Whether a version of [`ROOTS`] is this distribution's.
    fn has(self) -> fn(&Pin) -> bool {
        match self {
            Distribution::Debian => |offer| offer.suite != BACKPORTS,
            Distribution::DebianBackports => |offer| offer.suite == BACKPORTS,
        }
    }
}

/// The packages of a distribution's kernel.
pub(in crate::provision) fn set(distribution: Distribution, pins: &Pins) -> Set<'_> {
    Set {
        step: (3, distribution.title()),
        product: Product::StockKernel,
        recipe: RECIPE,
        purpose: PURPOSE,
        pins: distribution.pinned(pins),
        roots: &ROOTS,
        dependencies: true,
        suite: (distribution == Distribution::DebianBackports).then_some(BACKPORTS),
        candidates: distribution.has(),
        parts,
        fitting: distribution.name().to_owned(),
    }
}

/// The packages with a kernel's files, of the many that it depends on; the one that names it comes first.
fn parts(resolved: Vec<Pin>) -> Vec<Pin> {
    let is_release = |rest: &str| rest.ends_with(FLAVOUR) && rest.starts_with(|c: char| c.is_ascii_digit());
    let is_part = |pin: &Pin| PARTS.iter().any(|part| pin.package.strip_prefix(part).is_some_and(is_release));
    let mut parts: Vec<Pin> = resolved.into_iter().filter(is_part).collect();
    parts.sort_by_key(|pin| !pin.package.starts_with(MAIN));
    parts
}

/// Fetches the packages, and keeps the image, its configuration and the modules that a guest needs.
pub(in crate::provision) fn make(
    cache: &Cache,
    archive: &Archive,
    pins: &[Pin],
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let whole = product.join("unpacked");
    fs::create_dir(&whole).context("create", &whole)?;
    archive.unpack(PURPOSE, pins, &whole, &cache.log("stock-kernel")?, step)?;
    step.phase("choosing modules", 0);
    let files = files_below(&whole)?;
    let named = |start: &str| {
        let is_it = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
        // Modules have names of their own, one of which might begin so.
        files.iter().find(|path| is_it(path) && path.extension().is_none_or(|end| end != "xz" && end != "ko"))
    };
    let missing = |what: &str| ProvisionError::Missing {
        path: PathBuf::from(what),
        hint: "the distribution has changed the layout of its packages; name a kernel with --kernel".into(),
    };
    let kernel = named("vmlinuz").ok_or_else(|| missing("vmlinuz"))?;
    let release = image::release(kernel)?;
    let folder = modules::folder_of(&whole, &release);
    let keep = |from: &Path, name: &str| fs::copy(from, product.join(name)).map(drop).context("keep", from);
    keep(kernel, "bzImage")?;
    keep(named("config").ok_or_else(|| missing("config"))?, "config")?;
    if let Some(builtin) = modules::builtin(&folder) {
        keep(&builtin, "modules.builtin")?;
    }
    let kept = product.join("modules");
    fs::create_dir(&kept).context("create", &kept)?;
    let mut order = String::new();
    for (name, bytes) in modules::contents(&folder, &release)? {
        let path = kept.join(&name);
        fs::write(&path, bytes).context("write", &path)?;
        order += &format!("{name}\n");
    }
    for (name, text) in [(ORDER, order), ("version", release), ("packages", records(pins))] {
        let path = product.join(name);
        fs::write(&path, text).context("write", &path)?;
    }
    remove(&whole)
}

/// The kernel in a finished product.
pub(in crate::provision) fn in_product(product: &Path) -> Result<Kernel, ProvisionError> {
    let read = |name: &str| fs::read_to_string(product.join(name)).context("read", product.join(name));
    let order = read(ORDER)?;
    let modules = order.lines().map(|name| product.join("modules").join(name)).collect();
    let (modules, on_demand) = modules::split(modules);
    Ok(Kernel {
        image: product.join("bzImage"),
        modules,
        on_demand,
        version: read("version")?.trim().to_owned(),
        remedies: Remedies::of(Some(&read("config")?)),
        config: Some(product.join("config")),
        vmlinux: None,
        builtin: modules::builtin(product),
        selftests: None,
        source: None,
        checks: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(package: &str) -> Pin {
        Pin { package: package.into(), version: "1".into(), suite: BACKPORTS.into(), sha256: "0a".repeat(32) }
    }

    #[test]
    fn of_all_that_a_kernel_depends_on_only_its_own_packages_are_kept() {
        let resolved = ["kmod", "linux-base", "linux-base-7.3.4+deb13-amd64", "linux-image-7.3.4+deb13-amd64"]
            .into_iter()
            .chain(["linux-image-amd64", "linux-modules-7.3.4+deb13-amd64", "linux-sysctl-defaults"])
            .map(pin);
        let kept: Vec<_> = parts(resolved.collect()).into_iter().map(|pin| pin.package).collect();
        assert_eq!(
            kept,
            ["linux-image-7.3.4+deb13-amd64", "linux-base-7.3.4+deb13-amd64", "linux-modules-7.3.4+deb13-amd64"]
        );
    }

    #[test]
    fn stable_and_backports_do_not_take_each_others_kernel() {
        let backports = pin("linux-image-amd64");
        let security = Pin { suite: "trixie-security".into(), ..backports.clone() };
        let takes = |distribution: Distribution| [&backports, &security].map(|offer| (distribution.has())(offer));
        assert_eq!(takes(Distribution::Debian), [false, true]);
        assert_eq!(takes(Distribution::DebianBackports), [true, false]);
    }
}
