//! Fetches, builds and caches what a run needs: QEMU, a guest kernel, the guest's program and tools, a corpus.
//!
//! The first run on a machine takes some minutes; afterwards everything is found in the cache, without network and
//! without starting a package manager or a compiler. The user can bring each thing along instead ([`Options`]).

mod args;
mod cache;
mod corpus;
mod debian;
mod elf;
mod error;
mod guest_program;
mod guest_tools;
mod host_tools;
mod kernel;
mod progress;
mod qemu;
mod run;
mod survey;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

pub use self::args::ProvisionArgs;
pub use self::cache::{Cache, Entry, Key};
pub use self::corpus::BYTES as CORPUS_BYTES;
use self::error::IoContext;
pub use self::error::ProvisionError;
pub(crate) use self::host_tools::on_path;
pub use self::kernel::{BaseConfig, Kernel, KernelPackage};
pub use self::progress::Progress;
pub use self::qemu::{Qemu, Version};
pub use self::survey::{Finding, survey};

/// Sources, objects and downloads of a first run, with room to spare.
const NEEDED_MIB: u64 = 4096;
const STEPS: usize = 6;

/// What the user brings along, and where the rest is kept.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A QEMU of at least 10.1; otherwise `CXL_CRAM_QEMU`, then `PATH`, then Debian's packages.
    pub qemu: Option<PathBuf>,
    /// Which of Debian's kernel sources to build.
    pub kernel_package: KernelPackage,
    /// That source as Debian has it, without this project's own patches (which are for the default package).
    pub kernel_plain: bool,
    /// Further folders of patches on that source, one after the other.
    pub series: Vec<PathBuf>,
    /// A kernel source tree to build instead of Debian's; rebuilt by `make` as it changes.
    pub kernel_tree: Option<PathBuf>,
    /// What the tree's configuration starts from; otherwise its own `.config` if it has one, else nothing.
    pub kernel_config: Option<BaseConfig>,
    /// Build with the kernel's own checks (lock order, lists, memory management).
    pub kernel_debug: bool,
    /// A kernel that is already built (a bzImage); goes before `kernel_tree`.
    pub kernel: Option<PathBuf>,
    /// A folder with the modules of `kernel`, as installed or as built: what the guest needs is found there.
    pub kernel_modules_dir: Option<PathBuf>,
    /// Single modules of `kernel`, loaded after those, in this order.
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
    let maker = Maker::new(options, progress)?;
    let qemu = maker.qemu()?;
    let kernel = maker.kernel()?;
    let guest_program = maker.guest_program()?;
    let guest_tools = maker.guest_tools()?;
    let corpus = maker.corpus(&qemu)?;
    Ok(Provisioned { qemu, kernel, guest_program, guest_tools, corpus })
}

/// Finds or fetches QEMU only, for those who need no guest.
pub fn qemu(options: &Options, progress: &Progress) -> Result<Qemu, ProvisionError> {
    Maker::new(options, progress)?.qemu()
}

/// Finds or builds the guest kernel only.
pub fn kernel(options: &Options, progress: &Progress) -> Result<Kernel, ProvisionError> {
    Maker::new(options, progress)?.kernel()
}

/// The kernels that are built and cached, with their versions.
pub fn kernels(cache: &Cache) -> Result<Vec<(String, Entry)>, ProvisionError> {
    let version = |entry: &Entry| std::fs::read_to_string(entry.path.join("version")).ok();
    let named =
        |entry: &Entry| entry.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"kernel-"));
    let entries = cache.entries()?.into_iter().filter(named);
    Ok(entries.filter_map(|entry| Some((version(&entry)?.trim().to_owned(), entry))).collect())
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
    /// The newest kernel source, once it was asked for.
    newest: OnceCell<String>,
    /// Nothing is made or asked of the network: what is not there is [`ProvisionError::Absent`].
    looking: bool,
}

impl<'a> Maker<'a> {
    fn new(options: &'a Options, progress: &'a Progress) -> Result<Maker<'a>, ProvisionError> {
        Ok(Maker {
            cache: Cache::open(options.cache_dir.as_deref())?,
            options,
            progress,
            newest: OnceCell::new(),
            looking: false,
        })
    }

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
            return kernel::of_image(&self.cache, self.options, image);
        }
        if let Some(tree) = &self.options.kernel_tree {
            self.may_make()?;
            let mut step = self.progress.step(3, STEPS, "kernel");
            host_tools::ensure(&self.cache, self.options.offline, &mut step)?;
            let kernel = kernel::of_tree(&self.cache, tree, self.options, &mut step)?;
            step.done(&format!("Linux {}", kernel.version));
            return Ok(kernel);
        }
        let source = self.patched_source()?;
        let fragment = kernel::fragment(self.options)?;
        let key = kernel::key(&source, &fragment)?;
        let product = self.made(3, "kernel", "kernel", &key, |product, step| {
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            kernel::make(&self.cache, &source, &fragment, product, step)
        })?;
        kernel::in_product(&product, &source, self.options.kernel_debug)
    }

    /// The source that the kernel is built from.
    fn patched_source(&self) -> Result<kernel::Source, ProvisionError> {
        let base = self.package_source()?;
        let mut folders = Vec::new();
        if !self.options.kernel_plain && self.options.kernel_package == KernelPackage::default() {
            folders = kernel::own_series();
        }
        folders.extend_from_slice(&self.options.series);
        let series = kernel::Series::read(&folders)?;
        if series.is_empty() {
            return Ok(base);
        }
        let key = series.key(&base.key);
        let product = self.made(2, "patched kernel source", "kernel-source", &key, |product, step| {
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            let log = self.cache.log("kernel-series")?;
            series.apply(&base.tree, &kernel::source::in_product(product), &log, step)
        })?;
        Ok(kernel::Source { tree: kernel::source::in_product(&product), key })
    }

    /// The source as Debian has it.
    fn package_source(&self) -> Result<kernel::Source, ProvisionError> {
        let package = match &self.options.kernel_package {
            KernelPackage::Named(package) => package.clone(),
            KernelPackage::Newest => self.newest()?,
        };
        let key = kernel::source::key(&package);
        let product = self.made(2, "kernel source", "kernel-source", &key, |product, step| {
            self.room()?;
            host_tools::ensure(&self.cache, self.options.offline, step)?;
            kernel::source::make(&self.cache, &package, self.options.offline, product, step)
        })?;
        Ok(kernel::Source { tree: kernel::source::in_product(&product), key })
    }

    fn newest(&self) -> Result<String, ProvisionError> {
        if let Some(package) = self.newest.get() {
            return Ok(package.clone());
        }
        self.may_make()?;
        let mut step = self.progress.step(2, STEPS, "kernel source");
        let package = kernel::source::newest(&self.cache, self.options.offline, &mut step)?;
        step.done(&format!("the newest is {package}"));
        Ok(self.newest.get_or_init(|| package).clone())
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

    fn corpus(&self, qemu: &Qemu) -> Result<PathBuf, ProvisionError> {
        if let Some(file) = &self.options.corpus {
            return existing(file, "--corpus names a file of real data");
        }
        // Not the kernel's: it changes all the time, and the corpus must not change with it.
        let machine_code = vec![qemu.root().unwrap_or(qemu.program()).to_owned()];
        let text = match &self.options.kernel_tree {
            Some(tree) => tree.canonicalize().context("find", tree)?,
            None => self.package_source()?.tree,
        };
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
        self.may_make()?;
        let mut step = self.progress.step(number, STEPS, title);
        if self.cache.is_busy(name, key) {
            step.note("another run is making it; waiting");
        }
        let product = self.cache.product(name, key, |product| make(product, &mut step))?;
        step.done("ready");
        Ok(product)
    }

    fn may_make(&self) -> Result<(), ProvisionError> {
        if self.looking { Err(ProvisionError::Absent) } else { Ok(()) }
    }

    /// Refuses to begin what would fill the disk.
    fn room(&self) -> Result<(), ProvisionError> {
        let free_mib = self.free_mib()?;
        if free_mib < NEEDED_MIB {
            return Err(ProvisionError::NoSpace { path: self.cache.root().into(), free_mib, needed_mib: NEEDED_MIB });
        }
        Ok(())
    }

    /// Free space for the cache, MiB.
    fn free_mib(&self) -> Result<u64, ProvisionError> {
        let path = self.cache.root();
        let space = rustix::fs::statvfs(path).map_err(std::io::Error::from);
        let space = space.context("measure the free space of", path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize) >> 20)
    }
}

fn existing(file: &Path, hint: &str) -> Result<PathBuf, ProvisionError> {
    match file.is_file() {
        true => Ok(file.to_owned()),
        false => Err(ProvisionError::Missing { path: file.to_owned(), hint: hint.to_owned() }),
    }
}
