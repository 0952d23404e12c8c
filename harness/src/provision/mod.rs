//! Fetches, builds and caches what a run needs: QEMU, a guest kernel, the guest's program and tools, a corpus.
//!
//! The first run on a machine takes some minutes; afterwards everything is found in the cache, without network and
//! without starting a package manager or a compiler. The user can bring each thing along instead ([`Options`]).

mod cache;
mod corpus;
mod debian;
mod elf;
mod error;
mod guest_program;
mod guest_tools;
mod host_tools;
mod kernel;
mod kernel_config;
mod kernel_source;
mod progress;
mod qemu;
mod run;

use std::path::{Path, PathBuf};

pub use self::cache::{Cache, Entry, Key};
pub use self::corpus::BYTES as CORPUS_BYTES;
pub use self::error::ProvisionError;
pub use self::kernel::Kernel;
pub use self::progress::Progress;
pub use self::qemu::{Qemu, Version};

/// Sources, objects and downloads of a first run, with room to spare.
const NEEDED_MIB: u64 = 4096;
const STEPS: usize = 6;

/// What the user brings along, and where the rest is kept.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A QEMU of at least 10.1; otherwise `CXL_CRAM_QEMU`, then `PATH`, then Debian's packages.
    pub qemu: Option<PathBuf>,
    /// A kernel source tree to build instead of Debian's; rebuilt by `make` as it changes.
    pub kernel_tree: Option<PathBuf>,
    /// A kernel that is already built (a bzImage); goes before `kernel_tree`.
    pub kernel: Option<PathBuf>,
    /// The modules of `kernel`, in load order; none if `cxl_acpi` is built in.
    pub kernel_modules: Vec<PathBuf>,
    /// A folder with `usr/bin/cxl` and its libraries instead of Debian's packages.
    pub guest_tools: Option<PathBuf>,
    /// A file to fill guest memory with, instead of the corpus made here.
    pub corpus: Option<PathBuf>,
    /// The cache; otherwise `$XDG_CACHE_HOME/cxl-cram`.
    pub cache_dir: Option<PathBuf>,
    /// Use what is in the cache and never the network.
    pub offline: bool,
}

/// Everything that a run needs.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// QEMU.
    pub qemu: Qemu,
    /// The guest kernel.
    pub kernel: Kernel,
    /// The guest's program, static.
    pub guest_program: PathBuf,
    /// A root folder for the initramfs: `usr/bin/cxl`, `usr/bin/daxctl`, their libraries and loader, `usr/bin/busybox`.
    pub guest_tools: PathBuf,
    /// Real data, [`CORPUS_BYTES`] long unless the user brought another.
    pub corpus: PathBuf,
}

/// Finds or makes everything that a run needs.
///
/// Two runs at once share the cache: what one is making the other waits for. A run that is killed leaves no harm.
pub fn provision(options: &Options, progress: &Progress) -> Result<Provisioned, ProvisionError> {
    let maker = Maker { cache: Cache::open(options.cache_dir.as_deref())?, options, progress };
    let qemu = maker.qemu()?;
    let kernel = maker.kernel()?;
    let guest_program = maker.guest_program()?;
    let guest_tools = maker.guest_tools()?;
    let corpus = maker.corpus(&qemu, &kernel)?;
    Ok(Provisioned { qemu, kernel, guest_program, guest_tools, corpus })
}

/// Finds or fetches QEMU only, for those who need no guest.
pub fn qemu(options: &Options, progress: &Progress) -> Result<Qemu, ProvisionError> {
    Maker { cache: Cache::open(options.cache_dir.as_deref())?, options, progress }.qemu()
}

/// The workspace that this harness was compiled in: the guest program and the kernel's configuration come from it.
fn workspace() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.parent().unwrap_or(harness)
}

struct Maker<'a> {
    cache: Cache,
    options: &'a Options,
    progress: &'a Progress,
}

impl Maker<'_> {
    fn qemu(&self) -> Result<Qemu, ProvisionError> {
        if let Some(qemu) = qemu::of_the_user(self.options)? {
            return Ok(qemu);
        }
        let product =
            self.fetched(1, "QEMU", "qemu", &qemu::key(), |product, step| qemu::make(&self.cache, product, step))?;
        qemu::in_product(&product)
    }

    fn kernel(&self) -> Result<Kernel, ProvisionError> {
        if let Some(image) = &self.options.kernel {
            return kernel::of_image(self.options, image);
        }
        if let Some(tree) = &self.options.kernel_tree {
            let mut step = self.progress.step(3, STEPS, "kernel");
            host_tools::ensure(&self.cache, self.options.offline, &mut step)?;
            let kernel = kernel::of_tree(&self.cache, tree, &mut step)?;
            step.done(&format!("Linux {}", kernel.version));
            return Ok(kernel);
        }
        let source = self.kernel_source()?;
        let key = kernel::key(&source)?;
        let product = self.made(3, "kernel", "kernel", &key, |product, step| {
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            kernel::make(&self.cache, &source, product, step)
        })?;
        kernel::in_product(&product, &source)
    }

    fn kernel_source(&self) -> Result<PathBuf, ProvisionError> {
        let product = self.made(2, "kernel source", "kernel-source", &kernel_source::key(), |product, step| {
            self.room()?;
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            kernel_source::make(&self.cache, self.options.offline, product, step)
        })?;
        Ok(kernel_source::in_product(&product))
    }

    fn guest_program(&self) -> Result<PathBuf, ProvisionError> {
        let key = guest_program::key()?;
        let product = self.made(4, "guest program", "guest-program", &key, |product, step| {
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            guest_program::make(&self.cache, self.options.offline, product, step)
        })?;
        Ok(guest_program::in_product(&product))
    }

    fn guest_tools(&self) -> Result<PathBuf, ProvisionError> {
        if let Some(folder) = &self.options.guest_tools {
            return existing(&folder.join("usr/bin/cxl"), "--guest-tools names the folder above usr")
                .map(|_| folder.clone());
        }
        let make = |product: &Path, step: &mut progress::Step| guest_tools::make(&self.cache, product, step);
        let product = self.fetched(5, "guest tools", "guest-tools", &guest_tools::key(), make)?;
        Ok(guest_tools::in_product(&product))
    }

    fn corpus(&self, qemu: &Qemu, kernel: &Kernel) -> Result<PathBuf, ProvisionError> {
        if let Some(file) = &self.options.corpus {
            return existing(file, "--corpus names a file of real data");
        }
        // Not the kernel's: it changes all the time, and the corpus must not change with it.
        let machine_code = vec![qemu.root().unwrap_or(qemu.program()).to_owned()];
        let text = kernel.source.clone().map_or_else(|| self.kernel_source(), Ok)?;
        let sources = corpus::Sources { machine_code, text };
        let make = |product: &Path, step: &mut progress::Step| corpus::make(&sources, product, step);
        Ok(corpus::in_product(&self.made(6, "corpus", "corpus", &corpus::key(&sources), make)?))
    }

    /// A product that comes from the network.
    fn fetched(
        &self,
        number: usize,
        title: &str,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path, &mut progress::Step) -> Result<(), ProvisionError>,
    ) -> Result<PathBuf, ProvisionError> {
        self.made(number, title, name, key, |product, step| match self.options.offline {
            true => Err(ProvisionError::Offline { what: title.to_owned() }),
            false => make(product, step),
        })
    }

    /// A product, with its step shown if it has to be made.
    fn made(
        &self,
        number: usize,
        title: &str,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path, &mut progress::Step) -> Result<(), ProvisionError>,
    ) -> Result<PathBuf, ProvisionError> {
        if let Some(product) = self.cache.finished(name, key) {
            return Ok(product);
        }
        let mut step = self.progress.step(number, STEPS, title);
        if self.cache.is_busy(name, key) {
            step.note("another run is making it; waiting");
        }
        let product = self.cache.product(name, key, |product| make(product, &mut step))?;
        step.done("ready");
        Ok(product)
    }

    /// Refuses to begin what would fill the disk.
    fn room(&self) -> Result<(), ProvisionError> {
        let path = self.cache.root();
        let space = rustix::fs::statvfs(path).map_err(|errno| ProvisionError::Io {
            action: "measure the free space of",
            path: path.into(),
            source: errno.into(),
        })?;
        let free_mib = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
        if free_mib < NEEDED_MIB {
            return Err(ProvisionError::NoSpace { path: path.into(), free_mib, needed_mib: NEEDED_MIB });
        }
        Ok(())
    }
}

fn existing(file: &Path, hint: &str) -> Result<PathBuf, ProvisionError> {
    match file.is_file() {
        true => Ok(file.to_owned()),
        false => Err(ProvisionError::Missing { path: file.to_owned(), hint: hint.to_owned() }),
    }
}
