//! Sees to the programs and headers that building the kernel and the guest program needs.
//!
//! On Debian as root what is missing is installed with apt-get; otherwise one sentence names the packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::Cache;
use super::error::ProvisionError;
use super::progress::Step;
use super::run::{Limits, new_log, query, run};

const LIMITS: Limits = Limits::minutes(30, 5);

/// How to see that a package's content is there.
enum Sign {
    Program(&'static str),
    /// A header that the C compiler finds.
    Header(&'static str),
    /// A library that the C compiler finds.
    Archive(&'static str),
}

/// Each tool with the Debian package that has it.
const TOOLS: [(Sign, &str); 10] = [
    (Sign::Program("gcc"), "gcc"),
    (Sign::Program("make"), "make"),
    (Sign::Program("flex"), "flex"),
    (Sign::Program("bison"), "bison"),
    (Sign::Program("bc"), "bc"),
    (Sign::Program("perl"), "perl-base"),
    (Sign::Program("xz"), "xz-utils"),
    (Sign::Program("patch"), "patch"),
    // objtool, which the kernel builds for the host, reads ELF through it.
    (Sign::Header("gelf.h"), "libelf-dev"),
    // The guest program is static.
    (Sign::Archive("libc.a"), "libc6-dev"),
];

/// The packages of tools that are missing.
pub(super) fn lacking() -> Vec<&'static str> {
    missing(&TOOLS, found)
}

/// Whether this machine lets us install them.
pub(super) fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && rustix::process::geteuid().is_root()
}

/// Makes sure that the tools are there, installing the missing ones if this machine lets us.
pub(super) fn ensure(cache: &Cache, offline: bool, step: &mut Step) -> Result<(), ProvisionError> {
    let missing = lacking();
    if missing.is_empty() {
        return Ok(());
    }
    let named = || ProvisionError::MissingTools { packages: missing.join(" ") };
    if offline || !can_install() {
        return Err(named());
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
    run("updating the package lists", &mut apt(&["update"]), &log, LIMITS, |line| step.advance(0, line))?;
    let mut install = apt(&["install", "-y", "--no-install-recommends"]);
    install.args(&missing);
    let what = format!("installing {}", missing.join(", "));
    run(&what, &mut install, &log, LIMITS, |line| step.advance(0, line))?;
    if lacking().is_empty() { Ok(()) } else { Err(named()) }
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

/// Where a program is, as a shell would find it.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_packages_of_missing_tools_are_named() {
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
