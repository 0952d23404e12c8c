//! A private view of a Debian archive: queries it and unpacks packages without touching the machine's own state.
//!
//! Lists and state are in the cache. apt verifies them against Debian's keyring. Packages are only unpacked, never
//! installed, so no root is needed. This drives apt and dpkg because no crate verifies an archive's signatures.

mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use self::sources::Sources;
use super::cache::{Cache, Scratch, list, remove};
use super::error::{IoContext, ProvisionError};
use super::pins::{Pin, sha256_of};
use crate::process::run::RunError;
use crate::process::run::{Limits, new_log, run};
use cxl_cram_kit::progress::Step;

/// The release to fetch packages from: the first whose backports have a QEMU with vfio-user-pci.
pub(super) const RELEASE: &str = "trixie";
/// Its backports, preferred only if a caller of [`Archive::resolve`] asks for them.
pub(super) const BACKPORTS: &str = "trixie-backports";
const LOCK: &str = "apt";

const UPDATE_LIMITS: Limits = Limits::minutes(10, 3);
const QUERY_LIMITS: Limits = Limits::minutes(5, 3);
const DOWNLOAD_LIMITS: Limits = Limits::minutes(60, 3);
const UNPACK_LIMITS: Limits = Limits::minutes(10, 5);
const LOCK_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The purpose of a query, for error messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose {
    /// The thing to fetch: "the kernel source".
    pub(super) what: &'static str,
    /// The user's alternative to fetching it.
    pub(super) instead: &'static str,
}

/// A private view of a Debian archive.
pub(super) struct Archive {
    cache: Cache,
    /// The user's sources.list, instead of the machine's configuration.
    lines: Option<PathBuf>,
    sources: OnceLock<Sources>,
    /// Set once this program has refreshed the lists; holds the reason if the archive answered only in part.
    refreshed: OnceLock<Option<String>>,
}

impl Archive {
    /// A view that opens at the first query.
    pub(super) fn new(cache: &Cache, lines: Option<&Path>) -> Archive {
        Archive {
            cache: cache.clone(),
            lines: lines.map(Path::to_owned),
            sources: OnceLock::new(),
            refreshed: OnceLock::new(),
        }
    }

    /// Checks whether an archive is configured.
    pub(super) fn configured(&self, purpose: Purpose) -> Result<(), ProvisionError> {
        self.sources(purpose).map(|_| ())
    }

    /// Checks that the archive answered completely. Only then is a package that it does not list really gone.
    pub(super) fn answers_whole(&self, purpose: Purpose, step: &mut Step) -> Result<(), ProvisionError> {
        self.ready(purpose, step)?;
        match self.refreshed.get() {
            Some(Some(why)) => Err(unreachable(purpose, why.clone())),
            _ => Ok(()),
        }
    }

    /// All versions of these packages in the archive, the newest of each package first.
    pub(super) fn offers(&self, purpose: Purpose, names: &[&str], step: &mut Step) -> Result<Vec<Pin>, ProvisionError> {
        let log = self.ready(purpose, step)?;
        let ask = |verb: &str| {
            let mut text = String::new();
            let mut apt = self.apt("apt-cache", true)?;
            apt.arg(verb).args(names);
            match run("asking for versions", apt, &log, QUERY_LIMITS, |line| text += &format!("{line}\n")) {
                // apt-cache fails if it does not know one of the names.
                Ok(()) | Err(RunError::Failed { .. }) => Ok(text),
                Err(error) => Err(ProvisionError::from(error)),
            }
        };
        Ok(offers(&ask("show")?, &ask("madison")?))
    }

    /// The names of all packages with this prefix.
    pub(super) fn names(&self, purpose: Purpose, prefix: &str, step: &mut Step) -> Result<Vec<String>, ProvisionError> {
        let log = self.ready(purpose, step)?;
        let mut names = Vec::new();
        let mut apt = self.apt("apt-cache", true)?;
        apt.args(["pkgnames", prefix]);
        run("listing packages", apt, &log, QUERY_LIMITS, |line| names.push(line.trim().to_owned()))?;
        Ok(names)
    }

    /// The current versions of these packages (`name` or `name=version`) and all their dependencies.
    pub(super) fn resolve(
        &self,
        purpose: Purpose,
        packages: &[String],
        suite: Option<&str>,
        step: &mut Step,
    ) -> Result<Vec<Pin>, ProvisionError> {
        let log = self.ready(purpose, step)?;
        let mut apt = self.apt("apt-get", true)?;
        // apt refuses to prefer a suite that is not in the sources.
        if let Some(suite) = suite.filter(|suite| self.sources(purpose).is_ok_and(|sources| sources.has(suite))) {
            apt.args(["-t", suite]);
        }
        apt.args(["--simulate", "-y", "--no-install-recommends", "install"]).args(packages);
        let mut chosen = BTreeMap::new();
        let what = format!("choosing the packages of {}", purpose.what);
        run(&what, apt, &log, QUERY_LIMITS, |line| chosen.extend(planned(line)))?;
        let names: Vec<&str> = chosen.keys().map(String::as_str).collect();
        let offers = self.offers(purpose, &names, step)?;
        Ok(offers.into_iter().filter(|offer| chosen.get(&offer.package) == Some(&offer.version)).collect())
    }

    /// Downloads exactly these packages and unpacks them into `root`. A file without the pinned hash is not unpacked.
    pub(super) fn unpack(
        &self,
        purpose: Purpose,
        pins: &[Pin],
        root: &Path,
        log: &Path,
        step: &mut Step,
    ) -> Result<(), ProvisionError> {
        self.ready(purpose, step)?;
        new_log(log)?;
        // In the folder of the product being made, which no other run removes.
        let beside = root.parent().unwrap_or(root);
        let downloads = tempfile::Builder::new().prefix("downloads-").tempdir_in(beside);
        let downloads = downloads.context("create a folder in", beside)?;
        self.download(purpose, pins, downloads.path(), log, step)?;
        let packages: Vec<PathBuf> =
            list(downloads.path())?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "deb")).collect();
        step.phase("checking", packages.len() as u64);
        let mut expected: BTreeMap<&str, &Pin> = pins.iter().map(|pin| (pin.sha256.as_str(), pin)).collect();
        for package in &packages {
            if expected.remove(sha256_of(package)?.as_str()).is_none() {
                return Err(foreign(pins, package));
            }
            step.advance(1, "checking");
        }
        if let Some(pin) = expected.values().next() {
            return Err(unreachable(purpose, format!("apt did not download {pin}")));
        }
        step.phase("unpacking", packages.len() as u64);
        for package in &packages {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(package).arg(root);
            run(&format!("unpacking {name}"), unpack, log, UNPACK_LIMITS, |_| {})?;
            step.advance(1, &name);
            remove(package)?;
        }
        Ok(())
    }

    fn download(
        &self,
        purpose: Purpose,
        pins: &[Pin],
        downloads: &Path,
        log: &Path,
        step: &mut Step,
    ) -> Result<(), ProvisionError> {
        let mut apt = self.apt("apt-get", false)?;
        apt.args(["-o", "APT::Status-Fd=1"]).current_dir(downloads).arg("download");
        apt.args(pins.iter().map(Pin::exactly));
        step.phase("downloading", 100);
        let mut why = None;
        let fetched = run(&format!("downloading {}", purpose.what), apt, log, DOWNLOAD_LIMITS, |line| {
            // The first error names the failed file, the last only says that something failed.
            why = why.take().or(line.strip_prefix("E: ").map(str::to_owned));
            match download_status(line) {
                Some((percent, detail)) => step.at(percent, detail),
                None => step.advance(0, "downloading"),
            }
        });
        match (fetched, why) {
            // apt's message names the file and the cause.
            (Err(RunError::Failed { .. }), Some(why)) => Err(unreachable(purpose, why)),
            (fetched, _) => Ok(fetched?),
        }
    }

    fn sources(&self, purpose: Purpose) -> Result<&Sources, ProvisionError> {
        if let Some(sources) = self.sources.get() {
            return Ok(sources);
        }
        if std::env::consts::ARCH != "x86_64" {
            return Err(ProvisionError::Architecture(std::env::consts::ARCH));
        }
        let Purpose { what, instead } = purpose;
        let sources = match &self.lines {
            Some(file) => Sources::of_file(file)?,
            None => Sources::of_this_machine().map_err(|why| ProvisionError::NoDebian { what, why, instead })?,
        };
        Ok(self.sources.get_or_init(|| sources))
    }

    /// Updates our lists, once. Returns the log of queries.
    ///
    /// A partial answer, or none if earlier lists exist, is enough to go on: a failing download names its package.
    fn ready(&self, purpose: Purpose, step: &mut Step) -> Result<PathBuf, ProvisionError> {
        let log = self.cache.log("apt")?;
        if self.refreshed.get().is_some() {
            return Ok(log);
        }
        let sources = self.sources(purpose)?;
        let state = self.cache.scratch(Scratch::Apt)?;
        let _lock = match self.cache.lock(LOCK, Duration::ZERO) {
            Err(ProvisionError::Locked { .. }) => {
                step.phase("waiting for another run that uses the archive", 0);
                self.cache.lock(LOCK, LOCK_LIMIT)?
            }
            lock => lock?,
        };
        if self.refreshed.get().is_some() {
            return Ok(log);
        }
        new_log(&log)?;
        let lists = state.join("lists");
        fs::create_dir_all(lists.join("partial")).context("create", &lists)?;
        let file = state.join("sources.list");
        // Lists of other lines would answer for these.
        if fs::read_to_string(&file).ok().as_deref() != Some(sources.text()) {
            remove(&lists)?;
            fs::create_dir_all(lists.join("partial")).context("create", &lists)?;
        }
        fs::write(&file, sources.text()).context("write", &file)?;
        // An empty status file: nothing counts as installed, so every dependency is downloaded.
        let status = state.join("status");
        fs::write(&status, "").context("write", &status)?;
        step.phase("asking the package archive", 0);
        let mut why = None;
        let mut apt = self.apt("apt-get", false)?;
        apt.args(["update", "--error-on=any"]);
        let asked = run("asking the package archive", apt, &log, UPDATE_LIMITS, |line| {
            // The first error names the failed file, the last only says that something failed.
            why = why.take().or(line.strip_prefix("E: ").map(str::to_owned));
            step.advance(0, line);
        });
        let lacking = match asked {
            Ok(()) => None,
            Err(RunError::Failed { tail, .. }) => Some(why.unwrap_or(tail)),
            Err(error) => return Err(error.into()),
        };
        if let Some(why) = &lacking {
            let answered = list(&lists)?.iter().any(|path| path.to_string_lossy().contains("_Packages"));
            if !answered {
                return Err(unreachable(purpose, why.clone()));
            }
            step.note(&format!("the package archive did not answer completely ({why}); going on with the known lists"));
        }
        let _ = self.refreshed.set(lacking);
        Ok(log)
    }

    /// A program of apt with our own sources, state and cache. The machine's proxy and TLS settings apply, its pins do not.
    fn apt(&self, program: &str, query: bool) -> Result<Command, ProvisionError> {
        let state = self.cache.scratch(Scratch::Apt)?;
        let mut apt = Command::new(program);
        for (name, path) in [
            ("Dir::Etc::sourcelist", state.join("sources.list")),
            ("Dir::State", state.clone()),
            ("Dir::State::status", state.join("status")),
            ("Dir::Cache", state.join("cache")),
        ] {
            let mut option = std::ffi::OsString::from(format!("{name}="));
            option.push(path);
            apt.arg("-o").arg(option);
        }
        for fixed in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            "APT::Default-Release=",
            "APT::Sandbox::User=root",
            // Whatever the machine's configuration allows, we only run signed packages.
            "APT::Get::AllowUnauthenticated=false",
            "Acquire::AllowInsecureRepositories=false",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Retries=3",
            "Acquire::http::Timeout=30",
            "Acquire::https::Timeout=30",
            // Our own lock allows one run at a time.
            "Debug::NoLocking=1",
        ] {
            apt.args(["-o", fixed]);
        }
        if query {
            apt.args(["-o", "APT::Cache::ShowFull=true", "-q"]);
        }
        Ok(apt)
    }
}

pub(super) fn unreachable(purpose: Purpose, why: String) -> ProvisionError {
    ProvisionError::Unreachable { what: purpose.what, why, instead: purpose.instead }
}

/// The error for a downloaded file that is not the pinned one.
fn foreign(pins: &[Pin], package: &Path) -> ProvisionError {
    let file = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = file.split('_').next().unwrap_or_default();
    let pin = pins.iter().find(|pin| pin.package == name);
    let found = sha256_of(package).unwrap_or_default();
    ProvisionError::OtherHash {
        what: pin.map_or(file.clone(), Pin::to_string),
        pinned: pin.map_or_else(String::new, |pin| pin.sha256.clone()),
        found,
    }
}

/// Package and version in a line of apt's simulation: `Inst libc6 (2.41-12 Debian:13.2/stable [amd64])`.
fn planned(line: &str) -> Option<(String, String)> {
    let (package, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.split_once('(')?.1.split([' ', ')']).next()?;
    Some((package.to_owned(), version.to_owned()))
}

/// The packages of `apt-cache show` with the suites of `apt-cache madison`, the newest of each package first.
fn offers(shown: &str, madison: &str) -> Vec<Pin> {
    let mut suites: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for line in madison.lines() {
        let mut fields = line.split('|').map(str::trim);
        if let (Some(package), Some(version), Some(place)) = (fields.next(), fields.next(), fields.next())
            && let Some(suite) = place.split_whitespace().nth(1).and_then(|suite| suite.split('/').next())
        {
            suites.entry((package, version)).or_insert_with(|| suite.to_owned());
        }
    }
    let mut offers: Vec<Pin> = Vec::new();
    for record in shown.split("\n\n").flat_map(records) {
        let field =
            |name: &str| record.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        let (Some(package), Some(version), Some(sha256)) = (field("Package"), field("Version"), field("SHA256")) else {
            continue;
        };
        let suite = suites.get(&(package, version)).map_or("unknown", String::as_str).to_owned();
        let offer = Pin { package: package.into(), version: version.into(), suite, sha256: sha256.into() };
        if offer.is_sound() && !offers.contains(&offer) {
            offers.push(offer);
        }
    }
    offers.sort_by(|one, other| {
        let newer = || deb_version::compare_versions(&other.version, &one.version);
        one.package.cmp(&other.package).then_with(newer)
    });
    offers
}

/// The records of `apt-cache show`. [`run`] drops the empty lines between them, so each starts at its `Package:` line.
fn records(text: &str) -> Vec<Vec<&str>> {
    let mut records: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("Package:") || records.is_empty() {
            records.push(Vec::new());
        }
        if let Some(record) = records.last_mut() {
            record.push(line);
        }
    }
    records
}

/// Percentage and description from a line of apt's status protocol.
fn download_status(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.strip_prefix("dlstatus:")?.splitn(3, ':');
    fields.next()?;
    let percent: f64 = fields.next()?.parse().ok()?;
    Some((percent.clamp(0.0, 100.0) as u64, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_status_lines_give_a_percentage() {
        assert_eq!(download_status("dlstatus:1:42.5:Retrieving file 3 of 90"), Some((42, "Retrieving file 3 of 90")));
        assert_eq!(download_status("dlstatus:1:1e300:x"), Some((100, "x")));
        assert_eq!(download_status("Get:1 http://mirror.example.net"), None);
        assert_eq!(download_status("dlstatus:1"), None);
    }

    #[test]
    fn packages_are_read_from_apts_simulation() {
        let line = "Inst qemu-system-x86 (1:11.1.3+ds-1~bpo13+1 Debian Backports:stable-backports [amd64]) []";
        assert_eq!(planned(line), Some(("qemu-system-x86".into(), "1:11.1.3+ds-1~bpo13+1".into())));
        assert_eq!(planned("Conf libc6 (2.41-12 Debian:13.2/stable [amd64])"), None);
        assert_eq!(planned("Inst libc6"), None);
    }

    #[test]
    fn offers_are_the_records_with_a_hash_newest_first() {
        let [one, two, three] = ["a1", "b2", "c3"].map(|digits| digits.repeat(32));
        let show = format!(
            "Package: b\nVersion: 1.9\nSHA256: {one}\nPackage: b\nVersion: 1.10~rc1\nSHA256: {two}\n\
            Package: b\nVersion: 1.10\nSHA256: {three}\nPackage: b\nVersion: 1.9\nSHA256: {one}\n\
            Package: a\nVersion: 1\nPackage: b\nVersion: 2 -o Dir=/\nSHA256: {one}\n"
        );
        let madison = " b | 1.10 | http://m.example/debian trixie-security/main amd64 Packages\n\
             b | 1.9 | http://m.example/debian trixie/main amd64 Packages\nnonsense\n";
        let offers = offers(&show, madison);
        let seen: Vec<_> = offers.iter().map(|o| (o.version.as_str(), o.suite.as_str(), o.sha256.as_str())).collect();
        let expected = [("1.10", "trixie-security", &*three), ("1.10~rc1", "unknown", &*two), ("1.9", "trixie", &*one)];
        assert_eq!(seen, expected);
    }
}
