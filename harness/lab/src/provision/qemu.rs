//! Finds a QEMU that can host the device, or fetches one.
//!
//! The device attaches through `vfio-user-pci`, which QEMU has since 10.1. A user's own QEMU that has it is preferred.
//! Otherwise Debian's packages are unpacked into the cache, and QEMU runs from there with its own dynamic loader and
//! libraries: nothing is installed, and the host's C library does not matter.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Options;
use super::archive::{Archive, BACKPORTS, Purpose};
use super::cache::{Cache, Product};
use super::error::{IoContext, ProvisionError};
use super::host_tools::on_path;
use super::pinned::Set;
use super::pins::{Pin, records};
use crate::process::run::query;
use cxl_cram_kit::progress::Step;

const PROGRAM: &str = "qemu-system-x86_64";
/// Names the user's QEMU if `--qemu` does not.
const VARIABLE: &str = "CXL_CRAM_QEMU";
const DEVICE: &str = "vfio-user-pci";
const OLDEST: Version = Version { major: 10, minor: 1 };
/// The package with the program. Its dependencies are fetched too.
pub(super) const ROOTS: [&str; 1] = ["qemu-system-x86"];
/// The preferred suite when pins are moved or replaced.
pub(super) const SUITE: Option<&str> = Some(BACKPORTS);
/// Raise when the layout of the product changes.
const RECIPE: &[u8] = b"2";
/// QEMU in the archive's error messages.
pub(super) const PURPOSE: Purpose =
    Purpose { what: "QEMU", instead: "install QEMU 10.1 or later, or name one with --qemu" };

const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"];
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// QEMU's version, without the micro number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 11 of 11.1.3.
    pub major: u32,
    /// 1 of 11.1.3.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A QEMU that can host the device.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The version.
    pub version: Version,
    program: PathBuf,
    /// The folder of the unpacked packages; `None` for a user's QEMU.
    root: Option<PathBuf>,
}

impl Qemu {
    /// A command that starts this QEMU; the caller adds the machine's arguments.
    pub fn command(&self) -> Command {
        let Some(root) = &self.root else {
            return Command::new(&self.program);
        };
        let mut libraries = std::ffi::OsString::new();
        for (index, folder) in LIBRARIES.iter().enumerate() {
            if index > 0 {
                libraries.push(":");
            }
            libraries.push(root.join(folder));
        }
        let mut command = Command::new(root.join(LOADER));
        command.arg("--library-path").arg(libraries).arg(&self.program);
        for folder in FIRMWARE {
            command.arg("-L").arg(root.join(folder));
        }
        // QEMU would refuse each module of another build with a warning.
        command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
        command
    }

    /// The path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The folder of the unpacked packages, if this QEMU came from packages.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Runs a QEMU to find out its version and whether it can host the device.
    fn probe(program: PathBuf, root: Option<PathBuf>) -> Result<Qemu, ProvisionError> {
        let unfit = |why: String| ProvisionError::UnfitQemu { path: program.clone(), why };
        let mut qemu = Qemu { version: OLDEST, program: program.clone(), root };
        let text = query(qemu.command().arg("--version")).ok_or_else(|| unfit("it does not run".into()))?;
        qemu.version = version(&text).ok_or_else(|| unfit("it prints no version for --version".into()))?;
        if qemu.version < OLDEST {
            return Err(unfit(format!("it is version {}", qemu.version)));
        }
        let devices = query(qemu.command().args(["-device", "help"])).unwrap_or_default();
        if !devices.contains(&format!("\"{DEVICE}\"")) {
            return Err(unfit(format!("it was built without {DEVICE}")));
        }
        Ok(qemu)
    }
}

/// The user's QEMU. The one named must fit; one on `PATH` that does not fit is ignored.
pub(super) fn of_the_user(options: &Options) -> Result<Option<Qemu>, ProvisionError> {
    if let Some(named) = options.qemu.clone().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from)) {
        return Qemu::probe(named, None).map(Some);
    }
    Ok(on_path(PROGRAM).and_then(|program| Qemu::probe(program, None).ok()))
}

/// The packages of QEMU.
pub(super) fn set(pins: &[Pin]) -> Set<'_> {
    Set {
        step: (1, "QEMU"),
        product: Product::Qemu,
        recipe: RECIPE,
        purpose: PURPOSE,
        pins,
        roots: &ROOTS,
        dependencies: true,
        suite: SUITE,
        candidates: |_| true,
        parts: |all| all,
        fitting: String::new(),
    }
}

/// The QEMU in a finished product.
pub(super) fn in_product(product: &Path) -> Result<Qemu, ProvisionError> {
    let root = product.join("root");
    let recorded = product.join("version");
    let text = fs::read_to_string(&recorded).context("read", &recorded)?;
    let version = version(&text).ok_or_else(|| ProvisionError::Missing {
        path: recorded,
        hint: "the cache is damaged; run cxl-cram-harness clean, then try again".into(),
    })?;
    Ok(Qemu { version, program: root.join("usr/bin").join(PROGRAM), root: Some(root) })
}

/// Fetches QEMU's packages into a product.
pub(super) fn make(
    cache: &Cache,
    archive: &Archive,
    pins: &[Pin],
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let root = product.join("root");
    fs::create_dir(&root).context("create", &root)?;
    archive.unpack(PURPOSE, pins, &root, &cache.log("qemu")?, step)?;
    write(product, "packages", &records(pins))?;
    let qemu = Qemu::probe(root.join("usr/bin").join(PROGRAM), Some(root))?;
    let text = query(qemu.command().arg("--version")).unwrap_or_default();
    write(product, "version", &text)
}

fn write(product: &Path, name: &str, text: &str) -> Result<(), ProvisionError> {
    let path = product.join(name);
    fs::write(&path, text).context("write", &path)
}

/// Reads "QEMU emulator version 11.1.3 (Debian ...)".
fn version(text: &str) -> Option<Version> {
    let (_, rest) = text.split_once("QEMU emulator version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some(Version { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(version: &str, device: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(PROGRAM);
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo 'QEMU emulator version {version}';; *) echo 'name \"{device}\"';; esac\n"
        );
        // Another process writes it: a program that a parallel test starts could inherit our descriptor, and a file open
        // for writing cannot be executed.
        let write = ["-c", r#"printf %s "$1" > "$2" && chmod +x "$2""#, "sh", &script];
        assert!(Command::new("sh").args(write).arg(&program).status().unwrap().success());
        (folder, program)
    }

    #[test]
    fn versions_compare_by_number_not_by_letter() {
        let read = |text| version(text).unwrap();
        assert!(read("QEMU emulator version 9.2.0") < OLDEST);
        assert!(read("QEMU emulator version 10.0.9 (Debian 1:10.0.9+ds-1)") < OLDEST);
        assert!(read("QEMU emulator version 10.1.0-rc2") >= OLDEST);
        assert!(read("QEMU emulator version 11.0.50 (v11.0.0-1-gabcdef)") >= OLDEST);
        assert_eq!(version("QEMU emulator version x"), None);
        assert_eq!(version("something else 11.1"), None);
    }

    #[test]
    fn a_fitting_qemu_of_the_user_is_used_unchanged() {
        let (_folder, program) = fake("10.1.2", DEVICE);
        let options = Options { qemu: Some(program.clone()), ..Options::default() };
        let qemu = of_the_user(&options).unwrap().unwrap();
        assert_eq!(qemu.version, Version { major: 10, minor: 1 });
        assert_eq!(qemu.command().get_program(), program);
        assert_eq!(qemu.command().get_args().count(), 0);
    }

    #[test]
    fn a_named_qemu_that_cannot_host_the_device_is_an_error_with_the_reason() {
        for (version, device, why) in
            [("7.2.0", DEVICE, "version 7.2"), ("11.1.3", "vfio-pci", "without vfio-user-pci"), ("", DEVICE, "version")]
        {
            let (_folder, program) = fake(version, device);
            let error = Qemu::probe(program, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(Qemu::probe("/nonexistent/qemu".into(), None).unwrap_err().to_string().contains("does not run"));
    }

    #[test]
    fn a_packaged_qemu_uses_its_own_loader_libraries_and_firmware() {
        let product = tempfile::tempdir().unwrap();
        write(product.path(), "version", "QEMU emulator version 11.1.3\n").unwrap();
        let qemu = in_product(product.path()).unwrap();
        let command = qemu.command();
        let inside = |path: &std::ffi::OsStr| Path::new(path).starts_with(product.path());
        assert!(inside(command.get_program()));
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args[0], "--library-path");
        assert!(inside(args[2]) && args[2].to_string_lossy().ends_with(PROGRAM));
        assert_eq!(args.iter().filter(|arg| **arg == "-L").count(), FIRMWARE.len());
    }
}
