//! The errors of provisioning.
//!
//! Each message states the fault and then the remedy. If a program failed, the end of its log and the log's path follow.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::run::RunError;
use crate::workspace::NoWorkspace;

/// Something that a run needs cannot be provided.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// None of `--cache-dir`, `XDG_CACHE_HOME` and `HOME` is set.
    #[error("there is no folder for the cache; set HOME or XDG_CACHE_HOME, or give --cache-dir")]
    NoCacheFolder,

    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as a verb: "create", "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// The cache's file system is too full for a kernel build.
    #[error("{} has {free_mib} MiB free, but {needed_mib} MiB are needed; free some space or give another --cache-dir", path.display())]
    NoSpace {
        /// The cache folder.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// Needed space, MiB.
        needed_mib: u64,
    },

    /// Not in the cache, and `--offline` forbids the network.
    #[error("{what} is not in the cache yet; run once without --offline")]
    Offline {
        /// The missing thing.
        what: String,
    },

    /// `--offline` forbids a query to the archive.
    #[error("cannot query the package archive with --offline; run without it")]
    OfflineQuestion,

    /// Not in the cache, and nothing may be made.
    #[error("not in the cache yet")]
    Absent,

    /// Another run has held a product's lock for too long.
    #[error("another run has been making {what} for more than {} minutes; wait for it or end it", limit.as_secs() / 60)]
    Locked {
        /// The product.
        what: String,
        /// How long this run waited.
        limit: Duration,
    },

    /// A program of a step could not be started, failed or was stopped.
    #[error(transparent)]
    Run(#[from] RunError),

    /// The host is not x86-64.
    #[error("the guest is built for x86-64, but this machine is {0}; run this on an x86-64 machine")]
    Architecture(&'static str),

    /// There is no Debian archive to fetch from.
    #[error("cannot fetch {what}: {why}; {instead}")]
    NoDebian {
        /// The thing to fetch.
        what: &'static str,
        /// What the host lacks.
        why: &'static str,
        /// The user's alternative.
        instead: &'static str,
    },

    /// Programs or headers for the builds are missing and cannot be installed from here.
    #[error(
        "building the kernel, its selftests and the guest program needs the Debian packages {packages}; install them, or your distribution's equivalents"
    )]
    MissingTools {
        /// The missing packages, separated by spaces.
        packages: String,
    },

    /// The user's QEMU cannot host the device.
    #[error("{} cannot host the device: {why}; use QEMU 10.1 or later with vfio-user-pci", path.display())]
    UnfitQemu {
        /// The program.
        path: PathBuf,
        /// What it lacks.
        why: String,
    },

    /// The kernel's configuration step dropped lines of the fragments.
    #[error("this kernel's configuration dropped {}; correct the fragments in guest-tests/kernel", lines.join(", "))]
    ConfigDropped {
        /// The dropped lines.
        lines: Vec<String>,
    },

    /// The kernel's configuration does not have the user's lines.
    #[error(
        "this kernel's configuration does not take {}: it has no such option, or does not have what the option depends on; \
         add that with another --kernel-option", lines.join(", ")
    )]
    OptionRefused {
        /// The lines that it dropped or changed.
        lines: Vec<String>,
    },

    /// The archive has no such package.
    #[error("the package archive has no {package}; available: {have}")]
    NoSuchPackage {
        /// The requested package.
        package: String,
        /// The available packages.
        have: String,
    },

    /// The archive did not answer or did not deliver a package.
    #[error("cannot fetch {what} ({why}); check the network and apt's configuration, or {instead}")]
    Unreachable {
        /// The thing to fetch.
        what: &'static str,
        /// apt's message.
        why: String,
        /// The user's alternative.
        instead: &'static str,
    },

    /// The archive's file differs from the pinned one.
    #[error(
        "{what} has SHA-256 {found} in this archive, but {pinned} is pinned, so it is not used; fetch from another mirror, or, if you trust this archive, write its hash into harness/pins.toml"
    )]
    OtherHash {
        /// Package and version.
        what: String,
        /// The pinned hash.
        pinned: String,
        /// The hash of the archive's file.
        found: String,
    },

    /// The archive no longer has a pinned package, and no replacement fits.
    #[error(
        "the archive no longer has {pinned}, and nothing else in it fits:\n{}\n{instead}",
        tried.iter().map(|(version, why)| format!("  {version}: {why}")).collect::<Vec<_>>().join("\n")
    )]
    NothingFits {
        /// The pinned package and version.
        pinned: String,
        /// The versions tried, each with the reason why it does not fit.
        tried: Vec<(String, String)>,
        /// The user's alternative.
        instead: String,
    },

    /// The pin file is damaged.
    #[error("{} is not a valid pin file ({why}); restore it (git checkout), or give another with --pins", path.display())]
    BadPins {
        /// The file.
        path: PathBuf,
        /// The fault.
        why: String,
    },

    /// The cache's path has characters that the kernel's Makefile does not support.
    #[error("the kernel's Makefile cannot build below {}; give a --cache-dir without spaces and special characters", path.display())]
    UnbuildablePath {
        /// The cache.
        path: PathBuf,
    },

    /// A text file was expected, but the path is a pipe, a device, a folder, or far too large.
    #[error("{} is not a text file of at most 1 MiB", path.display())]
    NoSmallFile {
        /// The path.
        path: PathBuf,
    },

    /// The folder for the cache contains other things.
    #[error("{} is neither empty nor a cache of cxl-cram; give an empty or a new folder", path.display())]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
    },

    /// The folder to clean is not a cache.
    #[error("{} is not a cache of cxl-cram (it lacks our CACHEDIR.TAG and .cxl-cram-cache), so nothing in it is removed", path.display())]
    NoCache {
        /// The folder.
        path: PathBuf,
    },

    /// No checkout was found.
    #[error(transparent)]
    NoWorkspace(#[from] NoWorkspace),

    /// The user's kernel image is not one.
    #[error("{} is not a bzImage; give arch/x86/boot/bzImage of a built kernel", path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
    },

    /// The user's kernel tree is not one.
    #[error("{} is not a kernel source tree: its Makefile names no kernel version", path.display())]
    NoKernelTree {
        /// The tree.
        path: PathBuf,
    },

    /// A kernel tree has no such selftests.
    #[error("{} has no selftests {collection}; it has {have}", tree.display())]
    NoCollection {
        /// The tree.
        tree: PathBuf,
        /// The collection that was asked for.
        collection: String,
        /// Those of a similar name, or all.
        have: String,
    },

    /// The tests' source is not known.
    #[error(
        "the source of this kernel, and so of its selftests, is not known; name a tree that has them with --tests-from"
    )]
    NoTests,

    /// A patch of a series does not apply.
    #[error("{} does not apply ({why}); refresh it for this kernel; the whole log is {}", patch.display(), log.display())]
    PatchRefused {
        /// The patch.
        patch: PathBuf,
        /// The files and hunks that do not apply.
        why: String,
        /// The output of `patch`.
        log: PathBuf,
    },

    /// This project's own series cannot be read, or not be written.
    #[error("{} cannot be used as a series: {why}", path.display())]
    BadSeries {
        /// The file or folder.
        path: PathBuf,
        /// The fault, and the remedy.
        why: String,
    },

    /// A kernel tree was built in place, and its sources cannot be identified.
    #[error("{} was built in place, and {why}; run make mrproper there (it removes .config, so keep a copy)", tree.display())]
    BuiltInPlace {
        /// The tree.
        tree: PathBuf,
        /// Why the sources cannot be identified.
        why: &'static str,
    },

    /// A required file is missing.
    #[error("{} is missing; {hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The remedy.
        hint: String,
    },

    /// A program, library or module is not usable in the guest.
    #[error("{} is not usable in the guest: {why}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },

    /// There is too little data for the corpus.
    #[error("found only {have_mib} of {need_mib} MiB of real data for the corpus; give a file with --corpus")]
    CorpusTooSmall {
        /// Data found, MiB.
        have_mib: u64,
        /// Data needed, MiB.
        need_mib: u64,
    },
}

impl ProvisionError {
    /// Whether the cause is a full disk: our own write failed with it, or a program's last lines mention it.
    pub(super) fn is_full_disk(&self) -> bool {
        match self {
            ProvisionError::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            ProvisionError::Run(error) => error.is_full_disk(),
            _ => false,
        }
    }
}

/// Adds the action and the path to an I/O error.
pub(super) trait IoContext<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, ProvisionError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, ProvisionError> {
        self.map_err(|source| ProvisionError::Io { action, path: path.into(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_detected_in_our_own_writes_and_in_a_programs_output() {
        let failed = |tail: &str| RunError::Failed {
            what: "the build".into(),
            status: "exit status: 2".into(),
            log: "/log".into(),
            tail: tail.into(),
        };
        assert!(
            failed("fatal error: error writing to /x.s: No space left on device\nmake: *** [x] Error 1").is_full_disk()
        );
        assert!(!failed("mm/swap.c:1: error: expected ';'").is_full_disk());
        let full: std::io::Result<()> = Err(std::io::ErrorKind::StorageFull.into());
        assert!(full.context("write", "/log").unwrap_err().is_full_disk());
        let denied: std::io::Result<()> = Err(std::io::ErrorKind::PermissionDenied.into());
        assert!(!denied.context("write", "/log").unwrap_err().is_full_disk());
    }
}
