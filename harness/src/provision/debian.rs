//! Fetches Debian packages into a folder without touching the machine's own package state.
//!
//! The mirror is the one that the machine's configuration names; lists, state and downloads are ours, under the cache.
//! Packages come from one fixed release whatever the host's is, so that every user gets the same QEMU and guest
//! kernel. They are verified by apt against Debian's keyring and only unpacked, never installed: no root is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, list, remove};
use super::error::{IoContext, ProvisionError};
use super::progress::Step;
use super::run::{Limits, new_log, query, run};

/// The release that packages come from: the first whose backports have a QEMU with vfio-user-pci.
pub(super) const RELEASE: &str = "trixie";
/// Its backports, taken only where [`Fetch::release`] says so.
pub(super) const BACKPORTS: &str = "trixie-backports";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LOCK: &str = "apt";

const UPDATE_LIMITS: Limits = Limits::minutes(10, 3);
const DOWNLOAD_LIMITS: Limits = Limits::minutes(60, 3);
const UNPACK_LIMITS: Limits = Limits::minutes(10, 5);
const LOCK_LIMIT: Duration = Duration::from_secs(70 * 60);

/// Where a machine's own configuration gets Debian from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    /// The main archive, as apt writes its site.
    main: String,
    /// The security archive, if the machine uses it.
    security: Option<String>,
}

/// What to fetch.
pub(super) struct Fetch<'a> {
    pub(super) packages: &'a [&'a str],
    /// Everything they depend on, too.
    pub(super) dependencies: bool,
    /// The suite to prefer, when it is not the release itself.
    pub(super) release: Option<&'a str>,
}

/// A private view of the machine's Debian mirror.
pub(super) struct Debian {
    cache: Cache,
    mirror: Mirror,
}

impl Debian {
    /// Finds the mirror; `what` and `instead` make the sentence for a machine that has none.
    pub(super) fn of_this_machine(
        cache: &Cache,
        what: &'static str,
        instead: &'static str,
    ) -> Result<Debian, ProvisionError> {
        let lacking = |why| ProvisionError::NoDebian { what, why, instead };
        if std::env::consts::ARCH != "x86_64" {
            return Err(ProvisionError::Architecture(std::env::consts::ARCH));
        }
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", TARGET_FORMAT]);
        let targets = query(&mut apt).ok_or(lacking("there is no apt-get"))?;
        let mirror = mirror(&targets).or_else(|| {
            // Lists were never downloaded: there is no release information, only the configured lines.
            let codename = debian_codename(&fs::read_to_string("/etc/os-release").ok()?)?;
            let mut apt = Command::new("apt-get");
            apt.args(["indextargets", "--no-release-info", "--format", TARGET_FORMAT]);
            configured_mirror(&query(&mut apt)?, &codename)
        });
        let mirror = mirror.ok_or(lacking("apt is not configured with a Debian mirror"))?;
        if !Path::new(KEYRING).exists() {
            return Err(lacking("the package debian-archive-keyring is not installed"));
        }
        Ok(Debian { cache: cache.clone(), mirror })
    }

    /// Downloads packages and unpacks them into `root`. Returns the names of the package files, versions in them.
    pub(super) fn unpack(
        &self,
        fetch: &Fetch,
        root: &Path,
        log: &Path,
        step: &mut Step,
    ) -> Result<Vec<String>, ProvisionError> {
        new_log(log)?;
        let _lock = self.cache.lock(LOCK, LOCK_LIMIT)?;
        self.update(log, step)?;
        let downloads = self.cache.scratch("apt/downloads")?;
        for leftover in list(&downloads)? {
            remove(&leftover)?;
        }
        self.download(fetch, &downloads, log, step)?;
        let packages: Vec<PathBuf> =
            list(&downloads)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "deb")).collect();
        step.phase("unpacking", packages.len() as u64);
        let mut names = Vec::new();
        for package in &packages {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(package).arg(root);
            run(&format!("unpacking {name}"), &mut unpack, log, UNPACK_LIMITS, |_| {})?;
            step.advance(1, &name);
            remove(package)?;
            names.push(name);
        }
        Ok(names)
    }

    /// The names of all packages that begin with `prefix`, in any of the suites.
    pub(super) fn names(&self, prefix: &str, log: &Path, step: &mut Step) -> Result<Vec<String>, ProvisionError> {
        new_log(log)?;
        let _lock = self.cache.lock(LOCK, LOCK_LIMIT)?;
        self.update(log, step)?;
        let mut names = Vec::new();
        let mut apt = self.apt("apt-cache", &self.cache.scratch("apt")?);
        apt.args(["pkgnames", prefix]);
        run("listing Debian's packages", &mut apt, log, UPDATE_LIMITS, |line| names.push(line.trim().to_owned()))?;
        Ok(names)
    }

    fn update(&self, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
        let state = self.cache.scratch("apt")?;
        self.cache.scratch("apt/lists/partial")?;
        let sources = state.join("sources.list");
        fs::write(&sources, self.mirror.sources_list()).context("write", &sources)?;
        // An empty status file: nothing counts as installed, so every dependency is downloaded.
        let status = state.join("status");
        fs::write(&status, "").context("write", &status)?;
        step.phase("asking Debian's mirror", 0);
        let what = "asking Debian's mirror for its packages";
        run(what, self.apt("apt-get", &state).args(["update", "--error-on=any"]), log, UPDATE_LIMITS, |line| {
            step.advance(0, line)
        })
    }

    fn download(&self, fetch: &Fetch, downloads: &Path, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
        let state = self.cache.scratch("apt")?;
        fs::create_dir_all(downloads.join("partial")).context("create", downloads)?;
        let mut apt = self.apt("apt-get", &state);
        apt.arg("-o").arg(option("Dir::Cache::archives", downloads)).args(["-o", "APT::Status-Fd=1"]);
        if let Some(release) = fetch.release {
            apt.args(["-t", release]);
        }
        if fetch.dependencies {
            apt.args(["-y", "--no-install-recommends", "--download-only", "install"]);
        } else {
            apt.current_dir(downloads).arg("download");
        }
        apt.args(fetch.packages);
        step.phase("downloading", 100);
        let what = format!("downloading {}", fetch.packages.join(", "));
        run(&what, &mut apt, log, DOWNLOAD_LIMITS, |line| match download_status(line) {
            Some((percent, detail)) => step.at(percent, detail),
            None => step.advance(0, "downloading"),
        })
    }

    /// A program of apt on our own sources, state and cache. The machine's proxy and TLS settings still hold; its pins do not.
    fn apt(&self, program: &str, state: &Path) -> Command {
        let mut apt = Command::new(program);
        for (name, path) in [
            ("Dir::Etc::sourcelist", state.join("sources.list")),
            ("Dir::State", state.to_path_buf()),
            ("Dir::State::status", state.join("status")),
            ("Dir::Cache", state.join("cache")),
        ] {
            apt.arg("-o").arg(option(name, &path));
        }
        for fixed in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            "APT::Default-Release=",
            "APT::Sandbox::User=root",
            // Whatever the machine allows for itself, what we run is signed.
            "APT::Get::AllowUnauthenticated=false",
            "Acquire::AllowInsecureRepositories=false",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Retries=3",
            "Acquire::http::Timeout=30",
            "Acquire::https::Timeout=30",
            // One run at a time is seen to by our own lock.
            "Debug::NoLocking=1",
        ] {
            apt.args(["-o", fixed]);
        }
        apt
    }
}

impl Mirror {
    fn sources_list(&self) -> String {
        let options = format!("[arch=amd64 signed-by={KEYRING}]");
        let mut text = String::new();
        for suite in [RELEASE, BACKPORTS] {
            text += &format!("deb {options} {} {suite} main\n", self.main);
        }
        if let Some(security) = &self.security {
            text += &format!("deb {options} {security} {RELEASE}-security main\n");
        }
        text
    }
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("{name}="));
    option.push(path);
    option
}

/// What [`mirror`] and [`configured_mirror`] read: one index target a line.
const TARGET_FORMAT: &str = "$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(LABEL)";

struct Target<'a> {
    site: &'a str,
    release: &'a str,
    component: &'a str,
    origin: &'a str,
    label: &'a str,
}

fn targets(text: &str) -> impl Iterator<Item = Target<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split('|');
        Some(Target {
            site: fields.next().filter(|site| is_site(site))?,
            release: fields.next()?,
            component: fields.next()?,
            origin: fields.next()?,
            label: fields.next()?,
        })
    })
}

/// Nothing that could add words to a line of our sources list.
fn is_site(site: &str) -> bool {
    site.contains(":/") && !site.contains(|c: char| c.is_whitespace() || c.is_control() || "[]#".contains(c))
}

/// The mirror according to the signed release files that the machine has.
fn mirror(text: &str) -> Option<Mirror> {
    let site = |label| {
        let mut found = targets(text).filter(|t| t.origin == "Debian" && t.label == label && t.component == "main");
        found.next().map(|target| target.site.to_owned())
    };
    Some(Mirror { main: site("Debian")?, security: site("Debian-Security") })
}

/// The mirror according to the configured lines alone, on a Debian whose release is `codename`.
fn configured_mirror(text: &str, codename: &str) -> Option<Mirror> {
    let site = |releases: &[&str]| {
        let mut found = targets(text).filter(|t| releases.contains(&t.release) && t.component == "main");
        found.next().map(|target| target.site.to_owned())
    };
    let security = format!("{codename}-security");
    Some(Mirror {
        main: site(&[codename, "oldstable", "stable", "testing"])?,
        security: site(&[&security, "oldstable-security", "stable-security", "testing-security"]),
    })
}

/// The release's name from os-release, if the machine runs Debian itself.
fn debian_codename(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_owned()))
    };
    field("ID").filter(|id| id == "debian")?;
    field("VERSION_CODENAME")
}

/// Per cent and description from a line of apt's status protocol.
fn download_status(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.strip_prefix("dlstatus:")?.splitn(3, ':');
    fields.next()?;
    let percent: f64 = fields.next()?.parse().ok()?;
    Some((percent.clamp(0.0, 100.0) as u64, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWNLOADED: &str = "\
https://packages.example.org/apt|bookworm|main|Example|Debian
http://security.example.net/debian-security|bookworm-security|main|Debian|Debian-Security
http://mirror.example.net/debian|bookworm|contrib|Debian|Debian
http://mirror.example.net/debian|bookworm|main|Debian|Debian
http://mirror.example.net/debian|bookworm-backports|main|Debian Backports|Debian Backports
";

    #[test]
    fn the_mirror_is_the_one_whose_release_file_says_debian() {
        let mirror = mirror(DOWNLOADED).unwrap();
        assert_eq!(mirror.main, "http://mirror.example.net/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://security.example.net/debian-security"));
    }

    #[test]
    fn a_machine_of_another_distribution_has_no_debian_mirror() {
        assert_eq!(mirror("http://archive.example.com/ubuntu|noble|main|Ubuntu|Ubuntu\n"), None);
        assert_eq!(mirror(""), None);
        assert_eq!(debian_codename("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn without_release_files_the_configured_line_of_the_hosts_release_is_the_mirror() {
        let text = DOWNLOADED
            .lines()
            .skip(1)
            .map(|line| line.rsplitn(3, '|').last().unwrap().to_owned() + "|$(ORIGIN)|$(LABEL)\n");
        let codename = debian_codename("VERSION_CODENAME=bookworm\nID=debian\n").unwrap();
        let mirror = configured_mirror(&text.collect::<String>(), &codename).unwrap();
        assert_eq!(mirror.main, "http://mirror.example.net/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://security.example.net/debian-security"));
    }

    #[test]
    fn a_site_cannot_smuggle_words_into_the_sources_list() {
        assert_eq!(mirror("http://x.example [trusted=yes] y|bookworm|main|Debian|Debian\n"), None);
        assert_eq!(mirror("trusted|bookworm|main|Debian|Debian\n"), None);
    }

    #[test]
    fn the_sources_list_names_the_keyring_on_every_line() {
        let list = mirror(DOWNLOADED).unwrap().sources_list();
        assert_eq!(list.lines().count(), 3);
        assert!(list.lines().all(|line| line.contains("signed-by=") && line.ends_with(" main")), "{list}");
    }

    #[test]
    fn apts_status_lines_give_a_percentage() {
        assert_eq!(download_status("dlstatus:1:42.5:Retrieving file 3 of 90"), Some((42, "Retrieving file 3 of 90")));
        assert_eq!(download_status("dlstatus:1:1e300:x"), Some((100, "x")));
        assert_eq!(download_status("Get:1 http://mirror.example.net"), None);
        assert_eq!(download_status("dlstatus:1"), None);
    }
}
