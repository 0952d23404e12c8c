//! Checks for the programs and headers that each kind of work needs: building the kernel, the guest program or selftests,
//! unpacking a distribution's modules.
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

/// Work that needs tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Unpacking, patching and building a kernel.
    Kernel,
    /// Building the guest program.
    Program,
    /// Decompressing a distribution's modules.
    Modules,
    /// Building a kernel tree's selftests.
    Selftests,
}

/// A tool, its Debian package, and the work that needs it.
type Tool = (Sign, &'static str, &'static [Work]);

const TOOLS: [Tool; 11] = [
    (Sign::Program("gcc"), "gcc", &[Work::Kernel, Work::Program, Work::Selftests]),
    (Sign::Program("make"), "make", &[Work::Kernel, Work::Selftests]),
    (Sign::Program("flex"), "flex", &[Work::Kernel]),
    (Sign::Program("bison"), "bison", &[Work::Kernel]),
    (Sign::Program("bc"), "bc", &[Work::Kernel]),
    (Sign::Program("perl"), "perl-base", &[Work::Kernel, Work::Selftests]),
    (Sign::Program("xz"), "xz-utils", &[Work::Kernel, Work::Modules]),
    (Sign::Program("patch"), "patch", &[Work::Kernel]),
    (Sign::Program("rsync"), "rsync", &[Work::Selftests]),
    // For objtool, which the kernel builds for the host.
    (Sign::Header("gelf.h"), "libelf-dev", &[Work::Kernel]),
    // The guest program is static.
    (Sign::Archive("libc.a"), "libc6-dev", &[Work::Program]),
];

/// The packages of missing tools for this work.
pub(super) fn lacking(work: &[Work]) -> Vec<&'static str> {
    missing(&TOOLS, work, found)
}

/// Whether we can install them on this machine.
pub(super) fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && rustix::process::geteuid().is_root()
}

/// Checks for the tools, and installs missing ones if possible.
pub(super) fn ensure(cache: &Cache, work: Work, offline: bool, step: &mut Step) -> Result<(), ProvisionError> {
    let lacking = || lacking(&[work]);
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

fn missing(tools: &[Tool], work: &[Work], found: impl Fn(&Sign) -> bool) -> Vec<&'static str> {
    let needed = |by: &[Work]| by.iter().any(|one| work.contains(one));
    tools.iter().filter(|(sign, _, by)| needed(by) && !found(sign)).map(|(_, package, _)| *package).collect()
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
        let all = [Work::Kernel, Work::Program];
        assert_eq!(missing(&TOOLS, &all, |_| true), Vec::<&str>::new());
        let without = |sign: &Sign| !matches!(sign, Sign::Program("bc") | Sign::Header(_));
        assert_eq!(missing(&TOOLS, &all, without), ["bc", "libelf-dev"]);
    }

    #[test]
    fn without_a_kernel_to_build_only_a_compiler_and_xz_are_needed() {
        assert_eq!(missing(&TOOLS, &[Work::Program, Work::Modules], |_| false), ["gcc", "xz-utils", "libc6-dev"]);
    }

    #[test]
    fn a_program_is_found_on_the_path_and_nonsense_is_not() {
        assert!(found(&Sign::Program("sh")));
        assert!(!found(&Sign::Program("no-such-program-anywhere")));
        assert!(!found(&Sign::Archive("no-such-library.a")));
        assert!(!found(&Sign::Header("no-such-header.h")));
    }
}
