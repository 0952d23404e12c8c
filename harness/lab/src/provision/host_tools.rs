//! Checks for the programs and headers that building the kernel and the guest program needs.
//!
//! As root on Debian, apt-get installs what is missing; otherwise an error names the packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, lock};
use super::error::ProvisionError;
use crate::process::run::{Limits, new_log, query, run};
use cxl_cram_kit::progress::Step;

const LIMITS: Limits = Limits::minutes(30, 5);
/// Outside of the cache, because all caches share the machine's package manager.
const LOCK: &str = "/run/cxl-cram-host-tools.lock";
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The sign that a package's content is present.
enum Sign {
    Program(&'static str),
    /// A header that the C compiler finds.
    Header(&'static str),
    /// A library that the C compiler finds.
    Archive(&'static str),
}

/// Each tool with its Debian package.
const TOOLS: [(Sign, &str); 10] = [
    (Sign::Program("gcc"), "gcc"),
    (Sign::Program("make"), "make"),
    (Sign::Program("flex"), "flex"),
    (Sign::Program("bison"), "bison"),
    (Sign::Program("bc"), "bc"),
    (Sign::Program("perl"), "perl-base"),
    (Sign::Program("xz"), "xz-utils"),
    (Sign::Program("patch"), "patch"),
    // For objtool, which the kernel builds for the host.
    (Sign::Header("gelf.h"), "libelf-dev"),
    // The guest program is static.
    (Sign::Archive("libc.a"), "libc6-dev"),
];

/// The packages of missing tools.
pub(super) fn lacking() -> Vec<&'static str> {
    missing(&TOOLS, found)
}

/// Whether we can install them on this machine.
pub(super) fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && rustix::process::geteuid().is_root()
}

/// Checks for the tools, and installs missing ones if possible.
pub(super) fn ensure(cache: &Cache, offline: bool, step: &mut Step) -> Result<(), ProvisionError> {
    if lacking().is_empty() {
        return Ok(());
    }
    let named = |missing: &[&str]| ProvisionError::MissingTools { packages: missing.join(" ") };
    if offline || !can_install() {
        return Err(named(&lacking()));
    }
    // With concurrent steps or runs, the first one installs and the others find the tools.
    step.phase("waiting for another run that installs build tools", 0);
    let _lock = lock(Path::new(LOCK), "the build tools", LOCK_LIMIT)?;
    let missing = lacking();
    if missing.is_empty() {
        return Ok(());
    }
    let log = cache.log("host-tools")?;
    new_log(&log)?;
    step.phase("installing build tools", 0);
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30", "-o", "DPkg::Lock::Timeout=300"]);
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run("updating the package lists", apt(&["update"]), &log, LIMITS, |line| step.advance(0, line))?;
    let mut install = apt(&["install", "-y", "--no-install-recommends"]);
    install.args(&missing);
    let what = format!("installing {}", missing.join(", "));
    run(&what, install, &log, LIMITS.outliving_us(), |line| step.advance(0, line))?;
    if lacking().is_empty() { Ok(()) } else { Err(named(&lacking())) }
}

fn missing(tools: &[(Sign, &'static str)], found: impl Fn(&Sign) -> bool) -> Vec<&'static str> {
    tools.iter().filter(|(sign, _)| !found(sign)).map(|(_, package)| *package).collect()
}

fn found(sign: &Sign) -> bool {
    match sign {
        Sign::Program(name) => on_path(name).is_some(),
        Sign::Header(name) => {
            query(Command::new("gcc").args(["-M", "-include", name, "-x", "c", "/dev/null"])).is_some()
        }
        // The compiler prints a path when it finds the file and the bare name when it does not.
        Sign::Archive(name) => query(Command::new("gcc").arg(format!("-print-file-name={name}")))
            .is_some_and(|path| Path::new(path.trim()).is_absolute()),
    }
}

/// Finds a program on `PATH`, like a shell.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_of_missing_tools_are_named() {
        assert_eq!(missing(&TOOLS, |_| true), Vec::<&str>::new());
        let without = |sign: &Sign| !matches!(sign, Sign::Program("bc") | Sign::Header(_));
        assert_eq!(missing(&TOOLS, without), ["bc", "libelf-dev"]);
    }

    #[test]
    fn a_program_is_found_on_the_path_and_nonsense_is_not() {
        assert!(found(&Sign::Program("sh")));
        assert!(!found(&Sign::Program("no-such-program-anywhere")));
        assert!(!found(&Sign::Archive("no-such-library.a")));
        assert!(!found(&Sign::Header("no-such-header.h")));
    }
}
