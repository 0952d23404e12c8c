//! Unpacks Debian packages that the user names, with everything they depend on, into a root folder for the guest.
//!
//! A package that the pin file names comes in its pinned version, any other in the archive's newest, which is reported. Their
//! maintainer scripts do not run: a package has no alternatives, no users of its own and no generated files. Two things that
//! scripts would make are made here, because programs do not start or fail without them: the accounts `root` and `nobody`,
//! and the loader's path `/lib64`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cxl_cram_kit::progress::Step;

use super::archive::Purpose;
use super::cache::{Cache, Key, Product, remove};
use super::error::{IoContext, ProvisionError};
use super::pinned::ASK_AGAIN;
use super::pins::{self, Pin, Pins, is_package_name, is_version, records};
use super::{Maker, STEPS, substitute};

/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"1";
/// The packages in the archive's error messages.
const PURPOSE: Purpose =
    Purpose { what: "the guest's packages", instead: "leave out --packages and give their files with --overlay" };
/// What no program reads.
const UNREAD: [&str; 9] = [
    "boot",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/doc-base",
];
/// The links of Debian's merged `/usr`, which the guest's root makes itself.
const MERGED_USR: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// The loader, as every program names it and as its package has it.
const LOADER: [&str; 2] = ["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"];
/// The accounts of a root without any.
const ACCOUNTS: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];
/// Names that an error suggests.
const SUGGESTED: usize = 3;

/// A Debian package, `NAME` or `NAME=VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestPackage {
    name: String,
    version: Option<String>,
}

impl FromStr for GuestPackage {
    type Err = String;

    fn from_str(text: &str) -> Result<GuestPackage, String> {
        let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
        match is_package_name(name) && version.is_none_or(is_version) {
            true => Ok(GuestPackage { name: name.to_owned(), version: version.map(str::to_owned) }),
            false => Err("give a Debian package, NAME or NAME=VERSION".to_owned()),
        }
    }
}

impl fmt::Display for GuestPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}={version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl GuestPackage {
    /// The package, in whichever version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This package in its pinned version, if it has one and the user gave none.
    fn pinned(&self, pins: &Pins) -> GuestPackage {
        let is_it = |pin: &&Pin| pin.package == self.name;
        let pin = [&pins.guest_tools, &pins.qemu].into_iter().flatten().find(is_it);
        let version = self.version.clone().or_else(|| pin.map(|pin| pin.version.clone()));
        GuestPackage { name: self.name.clone(), version }
    }
}

impl Maker<'_> {
    /// A root folder with these packages and everything they depend on; none for no packages.
    pub(super) fn packages(&self, wanted: &[GuestPackage]) -> Result<Option<PathBuf>, ProvisionError> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(None);
        }
        let pins = self.pins()?;
        let wanted: Vec<GuestPackage> = wanted.iter().map(|package| package.pinned(pins)).collect();
        let words: Vec<String> = wanted.iter().map(GuestPackage::to_string).collect();
        let asked: Vec<_> = words.iter().map(|word| ("package", word.as_bytes())).collect();
        let asked = Key::of(&[&[("recipe", RECIPE)][..], asked.as_slice()].concat());
        let known = substitute::read(&self.cache, Product::Packages, &asked).and_then(|(pins, age)| {
            Some((self.cache.finished(Product::Packages, &pins::key(RECIPE, &pins))?, pins, age))
        });
        match known {
            Some((folder, pins, age)) if age < ASK_AGAIN || self.options.offline || self.looking => {
                self.progress.say(&said(&wanted, &pins));
                return Ok(Some(in_product(&folder)));
            }
            None if self.options.offline && !self.looking => {
                return Err(ProvisionError::Offline { what: format!("a set of the packages {}", words.join(", ")) });
            }
            _ => self.may_make()?,
        }
        let mut step = self.progress.step(5, STEPS, "guest packages");
        let pins = match (self.chosen(&wanted, &mut step), known) {
            (Err(ProvisionError::Unreachable { .. } | ProvisionError::NoDebian { .. }), Some((folder, pins, _))) => {
                step.note(&format!("the archive does not answer; from the cache: {}", said(&wanted, &pins)));
                return Ok(Some(in_product(&folder)));
            }
            (chosen, _) => chosen?,
        };
        let key = pins::key(RECIPE, &pins);
        let folder = self.or_no_space(
            self.cache.product(Product::Packages, &key, |folder| self.unpack_packages(&pins, folder, &mut step)),
        )?;
        substitute::write(&self.cache, Product::Packages, &asked, &pins)?;
        step.done(&said(&wanted, &pins));
        Ok(Some(in_product(&folder)))
    }

    /// The versions of these packages and of their dependencies. A pin that the archive lost is replaced by the newest.
    fn chosen(&self, wanted: &[GuestPackage], step: &mut Step) -> Result<Vec<Pin>, ProvisionError> {
        let names: Vec<&str> = wanted.iter().map(|package| package.name.as_str()).collect();
        let offers = self.archive.offers(PURPOSE, &names, step)?;
        let mut words = Vec::new();
        for package in wanted {
            let have: Vec<&Pin> = offers.iter().filter(|offer| offer.package == package.name).collect();
            let exact = have.iter().any(|offer| package.version.as_ref() == Some(&offer.version));
            let by_user = self.options.packages.contains(package) && package.version.is_some();
            if have.is_empty() || (by_user && !exact) {
                // What a suite that did not answer has is not known.
                self.archive.answers_whole(PURPOSE, step)?;
                let have = match have.is_empty() {
                    true => self.similar(&package.name, step)?,
                    false => have.iter().map(|offer| offer.exactly()).collect(),
                };
                let have = if have.is_empty() { "none of a similar name".to_owned() } else { have.join(", ") };
                return Err(ProvisionError::NoSuchPackage { package: package.to_string(), have });
            }
            words.push(if exact { package.to_string() } else { package.name.clone() });
        }
        self.archive.resolve(PURPOSE, &words, None, step)
    }

    /// Names in the archive that are like this one.
    fn similar(&self, name: &str, step: &mut Step) -> Result<Vec<String>, ProvisionError> {
        let names = self.archive.names(PURPOSE, &name[..1], step)?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let near = similar::get_close_matches(name, &names, SUGGESTED, 0.7);
        Ok(near.into_iter().map(str::to_owned).collect())
    }

    fn unpack_packages(&self, pins: &[Pin], product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
        let root = in_product(product);
        fs::create_dir(&root).context("create", &root)?;
        self.archive.unpack(PURPOSE, pins, &root, &log(&self.cache)?, step)?;
        tidy(&root)?;
        let listed = product.join("packages");
        fs::write(&listed, records(pins)).context("write", &listed)
    }
}

fn log(cache: &Cache) -> Result<PathBuf, ProvisionError> {
    cache.log("guest-packages")
}

/// The root folder in a finished product.
fn in_product(product: &Path) -> PathBuf {
    product.join("root")
}

/// Removes what the guest does not need, and adds what maintainer scripts would have made.
fn tidy(root: &Path) -> Result<(), ProvisionError> {
    for unread in UNREAD {
        remove(&root.join(unread))?;
    }
    for name in MERGED_USR.map(|name| root.join(name)) {
        if name.is_symlink() {
            remove(&name)?;
        }
    }
    // The guest's tools bring a loader of their own, which fits their library and not necessarily this one.
    let [loader, packaged] = LOADER.map(|path| root.join(path));
    if packaged.exists() && !loader.exists() {
        let folder = loader.parent().unwrap_or(root);
        fs::create_dir_all(folder).context("create", folder)?;
        fs::copy(&packaged, &loader).context("keep", &packaged)?;
    }
    for (path, text) in ACCOUNTS.map(|(path, text)| (root.join(path), text)) {
        if !path.exists() {
            let folder = path.parent().unwrap_or(root);
            fs::create_dir_all(folder).context("create", folder)?;
            fs::write(&path, text).context("write", &path)?;
        }
    }
    Ok(())
}

/// The named packages with their versions, and how many come with them.
fn said(wanted: &[GuestPackage], pins: &[Pin]) -> String {
    let named = pins.iter().filter(|pin| wanted.iter().any(|package| package.name == pin.package));
    let named: Vec<String> = named.map(|pin| format!("{} {}", pin.package, pin.version)).collect();
    match pins.len() - named.len() {
        0 => format!("packages: {}", named.join(", ")),
        more => format!("packages: {} and {more} that they depend on", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_a_name_with_or_without_a_version() {
        for text in ["bash", "libstdc++6", "numactl=2.0.19-1"] {
            assert_eq!(text.parse::<GuestPackage>().unwrap().to_string(), text);
        }
        for wrong in ["", "-t", "Bash", "a b", "bash=", "bash=1=2", "a/b", "../x"] {
            assert!(wrong.parse::<GuestPackage>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unpacked_root_gets_a_loader_and_accounts_and_loses_what_nobody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/share/doc/bash", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("usr/lib64", root.join("lib64")).unwrap();
        fs::write(root.join("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), "loader").unwrap();
        std::os::unix::fs::symlink("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root.join(LOADER[1])).unwrap();
        fs::write(root.join("etc/group"), "mine").unwrap();
        tidy(root).unwrap();
        assert_eq!(fs::read_to_string(root.join(LOADER[0])).unwrap(), "loader");
        assert!(!root.join("lib64").is_symlink() && !root.join("usr/share/doc").exists());
        assert!(fs::read_to_string(root.join("etc/passwd")).unwrap().starts_with("root:x:0:0:"));
        assert_eq!(fs::read_to_string(root.join("etc/group")).unwrap(), "mine");
    }
}
