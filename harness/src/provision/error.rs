//! Why something that a run needs could not be had.
//!
//! Each error is one sentence that says what to do; where a program failed, the end of its log and the log's path follow.

use std::path::PathBuf;
use std::time::Duration;

/// Why something that a run needs could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Neither `--cache-dir`, `XDG_CACHE_HOME` nor `HOME` says where to keep things.
    #[error("no folder to keep QEMU and the kernel in: set HOME or XDG_CACHE_HOME, or give --cache-dir")]
    NoCacheFolder,

    /// A file operation of our own failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "create", "read".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },

    /// The cache's file system is too full for a kernel build.
    #[error("{} has {free_mib} MiB free and {needed_mib} MiB are needed: make room or give --cache-dir", path.display())]
    NoSpace {
        /// The cache folder.
        path: PathBuf,
        /// Free space, MiB.
        free_mib: u64,
        /// Needed space, MiB.
        needed_mib: u64,
    },

    /// Not in the cache, and the network may not be used.
    #[error("{what} is not in the cache yet: run once without --offline")]
    Offline {
        /// The missing thing.
        what: String,
    },

    /// Not there, and this is only a look at what there is.
    #[error("it is not in the cache yet")]
    Absent,

    /// Another run has held a product's lock for too long.
    #[error("another run has been making {what} for more than {} minutes: end it or wait for it", limit.as_secs() / 60)]
    Locked {
        /// The product.
        what: String,
        /// How long this run waited.
        limit: Duration,
    },

    /// A program could not be started.
    #[error("cannot start {program}: install it")]
    NotStarted {
        /// The program.
        program: String,
        /// What the kernel said.
        source: std::io::Error,
    },

    /// A program ended with an error.
    #[error("{what} failed ({status}); the whole log is {}\n{tail}", log.display())]
    Failed {
        /// What the program was doing.
        what: String,
        /// How it ended.
        status: String,
        /// Everything it said.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A program was stopped because it took too long or fell silent.
    #[error("{what} was stopped: {why}; the whole log is {}\n{tail}", log.display())]
    TimedOut {
        /// What the program was doing.
        what: String,
        /// Which limit it ran into.
        why: String,
        /// Everything it said.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// The machine is not x86-64.
    #[error("the guest is x86-64 and is built here: run this on an x86-64 machine, not {0}")]
    Architecture(&'static str),

    /// There is no Debian archive to fetch from.
    #[error("{why}, so {what} cannot be fetched here: {instead}")]
    NoDebian {
        /// What was to be fetched.
        what: &'static str,
        /// What is missing.
        why: &'static str,
        /// What to do instead.
        instead: &'static str,
    },

    /// Programs or headers for the builds are missing and cannot be installed from here.
    #[error(
        "the kernel and the guest program are built here and need the Debian packages {packages} (or what your distribution calls them): install them"
    )]
    MissingTools {
        /// The missing packages, separated by spaces.
        packages: String,
    },

    /// The QEMU that the user named cannot host the device.
    #[error("{} cannot host the device: {why}; QEMU 10.1 or later with vfio-user-pci is needed", path.display())]
    UnfitQemu {
        /// That QEMU.
        path: PathBuf,
        /// What it lacks.
        why: String,
    },

    /// The kernel's configuration step dropped lines of the fragments.
    #[error("this kernel's configuration dropped {}: correct the fragments in guest-tests/kernel", lines.join(", "))]
    ConfigDropped {
        /// The dropped lines.
        lines: Vec<String>,
    },

    /// The mirror has no such kernel source.
    #[error("Debian's mirror has no {package}: name one of {have}")]
    NoSuchPackage {
        /// What was asked for.
        package: String,
        /// The kernel sources that it has.
        have: String,
    },

    /// The image that the user named is none.
    #[error("{} is no bzImage: name arch/x86/boot/bzImage of a kernel that was built", path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
    },

    /// A patch of a series does not fit the source.
    #[error("{} does not apply ({why}): refresh it for this kernel; the whole log is {}", patch.display(), log.display())]
    PatchRefused {
        /// The patch.
        patch: PathBuf,
        /// The files and hunks that do not fit.
        why: String,
        /// Everything that `patch` said.
        log: PathBuf,
    },

    /// A kernel tree that was built in place, and nothing to tell its sources from what was built.
    #[error("{} was built in place and {why}: run make mrproper there (it removes .config, so keep a copy)", tree.display())]
    BuiltInPlace {
        /// The tree.
        tree: PathBuf,
        /// Why its sources cannot be told from the rest.
        why: &'static str,
    },

    /// A file that must be there is not.
    #[error("{} is missing: {hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: String,
    },

    /// A file is not an ELF file of the expected kind.
    #[error("{} is not usable in the guest: {why}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// Less data than the corpus needs.
    #[error("only {have_mib} of {need_mib} MiB of real data were found for the corpus: give a file with --corpus")]
    CorpusTooSmall {
        /// What was found, MiB.
        have_mib: u64,
        /// What is needed, MiB.
        need_mib: u64,
    },
}

/// Names the action and the path that an I/O error belongs to.
pub(super) trait IoContext<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, ProvisionError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, ProvisionError> {
        self.map_err(|source| ProvisionError::Io { action, path: path.into(), source })
    }
}
