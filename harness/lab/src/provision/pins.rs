//! The pins: package, version and hash of everything that a run fetches.
//!
//! They are in one file of the checkout, so a revision determines every byte fetched. `pins move` writes the file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::cache::Key;
use super::error::{IoContext, ProvisionError};

/// The file, below the checkout.
const FILE: &str = "harness/pins.toml";
/// The largest pin file accepted, in bytes.
const MOST_BYTES: u64 = 1 << 20;

const HEADER: &str = "\
# What a run fetches: every package with its version, the suite it was found in, and the SHA-256 of its file.
# apt verifies the archive against Debian's keyring; these hashes decide which of its packages are taken.
#
# Do not edit by hand: `cxl-cram-harness pins move` looks for newer versions, tries them and writes this file.
# If the archive no longer has a pin, a run uses the newest version that fits, and reports that.
";

/// One package file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The name: `linux-source-6.12`.
    pub package: String,
    /// The full version with epoch and revision, as Debian writes it.
    pub version: String,
    /// The suite that had it when it was pinned. Informative: apt is asked by version.
    pub suite: String,
    /// SHA-256 of the `.deb`, 64 hexadecimal digits.
    pub sha256: String,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.version)
    }
}

/// Everything that a run fetches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pins {
    /// The kernel source that the series is for: one package.
    pub kernel_source: Vec<Pin>,
    /// The kernel of Debian's stable release. May be empty: only `--kernel-distribution` fetches it.
    #[serde(default)]
    pub kernel_debian: Vec<Pin>,
    /// The kernel of its backports. May be empty.
    #[serde(default)]
    pub kernel_debian_backports: Vec<Pin>,
    /// UEFI firmware: one package. May be empty: only `--firmware ovmf` fetches it.
    #[serde(default)]
    pub ovmf: Vec<Pin>,
    /// QEMU, followed by its dependencies.
    pub qemu: Vec<Pin>,
    /// `cxl`, `daxctl`, busybox and their dependencies.
    pub guest_tools: Vec<Pin>,
}

impl Pins {
    /// The pin file of a checkout.
    pub(super) fn path(workspace: &Path) -> PathBuf {
        workspace.join(FILE)
    }

    /// Reads a pin file.
    pub(super) fn read(path: &Path) -> Result<Pins, ProvisionError> {
        let wrong = |why: String| ProvisionError::BadPins { path: path.into(), why };
        let text = read_small(path)?;
        let pins: Pins = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        for (name, set, optional) in pins.sets() {
            if set.is_empty() && !optional {
                return Err(wrong(format!("it pins nothing for {name}")));
            }
            let twice = set.iter().find(|pin| set.iter().filter(|other| other.package == pin.package).count() > 1);
            if let Some(pin) = twice {
                return Err(wrong(format!("it pins {} twice for {name}", pin.package)));
            }
            if let Some(pin) = set.iter().find(|pin| !pin.is_sound()) {
                return Err(wrong(format!(
                    "{:?} {:?} is not a valid package, version, suite and hash",
                    pin.package, pin.version
                )));
            }
        }
        if pins.kernel_source.len() > 1 {
            return Err(wrong("it pins more than one kernel source".into()));
        }
        Ok(pins)
    }

    /// Every set with its name in the file, and whether it may be empty.
    pub(super) fn sets(&self) -> [(&'static str, &Vec<Pin>, bool); 6] {
        [
            ("kernel-source", &self.kernel_source, false),
            ("kernel-debian", &self.kernel_debian, true),
            ("kernel-debian-backports", &self.kernel_debian_backports, true),
            ("qemu", &self.qemu, false),
            ("ovmf", &self.ovmf, true),
            ("guest-tools", &self.guest_tools, false),
        ]
    }

    /// The kernel source.
    pub(super) fn kernel(&self) -> Option<&Pin> {
        self.kernel_source.first()
    }
}

impl fmt::Display for Pins {
    /// Writes the pin file: a line for each package.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for (name, set, optional) in self.sets() {
            if set.is_empty() && optional {
                continue;
            }
            write!(f, "\n{name} = [\n")?;
            for Pin { package, version, suite, sha256 } in set {
                writeln!(
                    f,
                    "    {{ package = \"{package}\", version = \"{version}\", suite = \"{suite}\", sha256 = \"{sha256}\" }},"
                )?;
            }
            writeln!(f, "]")?;
        }
        Ok(())
    }
}

impl Pin {
    /// Whether no field could pass for an option or another word on apt's command line, or break the file's syntax.
    pub(super) fn is_sound(&self) -> bool {
        is_package_name(&self.package)
            && is_version(&self.version)
            && is_word(&self.suite, "-/")
            && self.sha256.len() == 64
            && self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// The pin as a line, for records in the cache.
    pub(super) fn record(&self) -> String {
        format!("{} {} {} {}", self.package, self.version, self.suite, self.sha256)
    }

    /// Parses a line written by [`Pin::record`].
    pub(super) fn from_record(line: &str) -> Option<Pin> {
        let mut words = line.trim_end().split(' ').map(str::to_owned);
        let (package, version, suite, sha256) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(Pin { package, version, suite, sha256 }).filter(|pin| words.next().is_none() && pin.is_sound())
    }

    /// The pin as apt's `package=version`.
    pub(super) fn exactly(&self) -> String {
        format!("{}={}", self.package, self.version)
    }
}

/// Whether Debian allows this as a package name.
pub(super) fn is_package_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && is_word(text, "+-.")
}

/// Whether Debian allows this as a version.
pub(super) fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && is_word(text, "+-.~:")
}

fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Packages as records in the cache, a line for each.
pub(super) fn records(pins: &[Pin]) -> String {
    pins.iter().map(|pin| pin.record() + "\n").collect()
}

/// The key of a product made only from these packages. Their order and suites do not count.
pub(super) fn key(recipe: &[u8], pins: &[Pin]) -> Key {
    let mut sorted: Vec<_> = pins.iter().map(|pin| (&pin.package, &pin.version, &pin.sha256)).collect();
    sorted.sort_unstable();
    let mut inputs = vec![("recipe", recipe)];
    for (package, version, sha256) in sorted {
        inputs.extend([
            ("package", package.as_bytes()),
            ("version", version.as_bytes()),
            ("sha256", sha256.as_bytes()),
        ]);
    }
    Key::of(&inputs)
}

/// Reads a user's text file, which must be regular and small. A pipe or a device could block us forever.
pub(super) fn read_small(path: &Path) -> Result<String, ProvisionError> {
    let metadata = std::fs::metadata(path).context("read", path)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(ProvisionError::NoSmallFile { path: path.into() });
    }
    std::fs::read_to_string(path).context("read", path)
}

/// The SHA-256 of a file in lower-case hexadecimal, as in pins.
pub(super) fn sha256_of(path: &Path) -> Result<String, ProvisionError> {
    let mut file = std::fs::File::open(path).context("read", path)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).context("read", path)?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(package: &str, version: &str) -> Pin {
        Pin { package: package.into(), version: version.into(), suite: "trixie".into(), sha256: "0a".repeat(32) }
    }

    fn pins() -> Pins {
        Pins {
            kernel_source: vec![pin("linux-source-6.12", "6.12.118-1")],
            kernel_debian: vec![pin("linux-image-6.12.118+deb13-amd64", "6.12.118-1")],
            kernel_debian_backports: Vec::new(),
            ovmf: vec![pin("ovmf", "2025.02-8+deb13u1")],
            qemu: vec![pin("qemu-system-x86", "1:11.1.3+ds-1~bpo13+1"), pin("libc6", "2.41-12+deb13u5")],
            guest_tools: vec![pin("cxl", "81-1")],
        }
    }

    fn read(text: &str) -> Result<Pins, ProvisionError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Pins::read(file.path())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(read(&pins().to_string()).unwrap(), pins());
    }

    #[test]
    fn the_checkout_pins_everything_that_a_run_fetches() {
        let pins = Pins::read(&Pins::path(&crate::workspace::workspace().unwrap())).unwrap();
        assert_eq!(pins.kernel_source.len(), 1);
        assert_eq!(pins.ovmf[0].package, "ovmf");
        for kernel in [&pins.kernel_debian, &pins.kernel_debian_backports] {
            assert!(kernel[0].package.starts_with("linux-image-"), "{kernel:?}");
        }
        assert_eq!(pins.qemu[0].package, "qemu-system-x86");
        assert!(pins.qemu.iter().any(|pin| pin.package == "seabios"));
        assert!(
            ["busybox-static", "cxl", "daxctl"]
                .iter()
                .all(|name| pins.guest_tools.iter().any(|pin| pin.package == *name))
        );
        assert_eq!(read(&pins.to_string()).unwrap(), pins);
    }

    #[test]
    fn a_pin_that_could_smuggle_words_to_apt_is_refused() {
        for (field, value) in [
            ("package", "-oDir=/"),
            ("package", "a b"),
            ("version", "1=2"),
            ("version", ""),
            ("suite", "x y"),
            ("sha256", "0A"),
        ] {
            let mut wrong = pins();
            let pin = &mut wrong.qemu[1];
            let place = match field {
                "package" => &mut pin.package,
                "version" => &mut pin.version,
                "suite" => &mut pin.suite,
                _ => &mut pin.sha256,
            };
            value.clone_into(place);
            let error = read(&wrong.to_string()).unwrap_err();
            assert!(matches!(error, ProvisionError::BadPins { .. }), "{field} {value}: {error}");
        }
    }

    #[test]
    fn an_incomplete_or_invalid_pin_file_is_refused_with_the_reason() {
        assert!(read("kernel-source = []").unwrap_err().to_string().contains("qemu"));
        let mut without = pins();
        without.guest_tools.clear();
        assert!(read(&without.to_string()).unwrap_err().to_string().contains("guest-tools"));
        assert!(matches!(read("= ="), Err(ProvisionError::BadPins { .. })));
    }

    #[test]
    fn the_key_is_of_versions_and_hashes_not_of_names_order_or_suites() {
        let one = [pin("a", "1"), pin("b", "2")];
        let other_order = [pin("b", "2"), Pin { suite: "x".into(), ..pin("a", "1") }];
        assert_eq!(key(b"1", &one), key(b"1", &other_order));
        assert_ne!(key(b"1", &one), key(b"2", &one));
        assert_ne!(key(b"1", &one), key(b"1", &[pin("a", "1"), pin("b", "3")]));
        let rebuilt = [pin("a", "1"), Pin { sha256: "0b".repeat(32), ..pin("b", "2") }];
        assert_ne!(key(b"1", &one), key(b"1", &rebuilt));
    }
}
