//! Fetches, builds and caches what a run needs: QEMU, a guest kernel, the guest program, guest tools and a corpus.
//!
//! The first run on a machine takes some minutes. Later runs find everything in the cache and need neither network nor
//! package manager nor compiler. The user can provide each thing instead ([`Options`]).

mod archive;
mod args;
mod cache;
mod corpus;
mod elf;
mod error;
mod firmware;
mod guest_program;
mod guest_tools;
mod host_tools;
mod kernel;
mod marker;
mod moving;
mod packages;
mod pinned;
mod pins;
mod qemu;
mod substitute;
mod survey;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use self::archive::Archive;
pub use cxl_cram_kit::progress::Progress;
use cxl_cram_kit::progress::Step;

pub use self::args::{FetchArgs, KernelSource, ProvisionArgs, QemuSource};
pub use self::cache::{Cache, Entry, Key, Product};
pub use self::corpus::BYTES as CORPUS_BYTES;
use self::error::IoContext;
pub use self::error::ProvisionError;
use self::host_tools::Work;
pub(crate) use self::host_tools::on_path;
pub use self::kernel::kselftests;
pub use self::kernel::{
    BaseConfig, Checks, Collection, Distribution, Kernel, KernelOption, KernelPackage, Kselftests, Remedies, Selftest,
    TreeModule, Unbuilt,
};
pub(crate) use self::kernel::{KSELFTESTS_IN_GUEST, SELFTESTS_IN_GUEST};
pub(crate) use self::kernel::{Share, StoredSeries};
pub use self::moving::{Candidates, Verdict, candidates, fit_of};
pub use self::packages::GuestPackage;
pub use self::pins::{Pin, Pins};
pub use self::qemu::{Qemu, Version};
pub use self::survey::{Finding, PinState, pin_states, survey};
use crate::process::run::stop_with;
use crate::workspace::workspace;

/// Disk space for sources, objects and downloads of a first run, with a reserve.
const NEEDED_MIB: u64 = 4096;
const STEPS: usize = 6;
const CORPUS_HINT: &str = "--corpus must name a file of real data";

/// What the user provides, and where the rest comes from and is kept.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A QEMU of at least 10.1; otherwise `CXL_CRAM_QEMU`, then `PATH`, then Debian's packages.
    pub qemu: Option<PathBuf>,
    /// The Debian kernel source to build.
    pub kernel_package: KernelPackage,
    /// Build that source without this project's own patches (which are for the pinned package).
    pub kernel_plain: bool,
    /// Additional folders of patches for that source, applied in this order.
    pub series: Vec<PathBuf>,
    /// A kernel source tree to build instead of Debian's; `make` rebuilds it as it changes.
    pub kernel_tree: Option<PathBuf>,
    /// Base configuration of the tree; otherwise its own `.config` if it has one, else an empty one.
    pub kernel_config: Option<BaseConfig>,
    /// Fragments of configuration on top of that of a kernel that is built.
    pub kernel_fragments: Vec<PathBuf>,
    /// Fragments that the kernel need not take: of options that it has, and below all others.
    pub kernel_wishes: Vec<PathBuf>,
    /// Options on top of those.
    pub kernel_options: Vec<KernelOption>,
    /// Modules of the tree to build besides; the guest loads them only on request.
    pub build_modules: Vec<TreeModule>,
    /// Build with these of the kernel's own checks.
    pub kernel_checks: Option<Checks>,
    /// A distribution's own kernel instead of one that is built.
    pub kernel_distribution: Option<Distribution>,
    /// A built kernel (a bzImage); takes precedence over `kernel_tree`.
    pub kernel: Option<PathBuf>,
    /// A folder with the modules of `kernel`, as installed or as built. Only those that the guest needs are used.
    pub kernel_modules_dir: Option<PathBuf>,
    /// Single modules of `kernel`, loaded after those, in this order.
    pub kernel_modules: Vec<PathBuf>,
    /// A folder with `usr/bin/cxl` and its libraries instead of Debian's packages.
    pub guest_tools: Option<PathBuf>,
    /// Packages for the guest, besides its tools.
    pub packages: Vec<GuestPackage>,
    /// A file to fill guest memory with, instead of the corpus made here.
    pub corpus: Option<PathBuf>,
    /// The cache; otherwise `$XDG_CACHE_HOME/cxl-cram`.
    pub cache_dir: Option<PathBuf>,
    /// A pin file; otherwise the checkout's.
    pub pins: Option<PathBuf>,
    /// A sources.list to fetch packages from; otherwise the Debian archive in this machine's apt configuration.
    pub apt_sources: Option<PathBuf>,
    /// Provide UEFI firmware.
    pub ovmf: bool,
    /// Do not make a corpus, because no scenario of this run reads it.
    pub no_corpus: bool,
    /// Use only the cache, never the network.
    pub offline: bool,
}

/// Everything that a run needs.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// QEMU.
    pub qemu: Qemu,
    /// The guest kernel.
    pub kernel: Kernel,
    /// The static guest program.
    pub guest_program: PathBuf,
    /// A root folder for the initramfs: `usr/bin/cxl`, `usr/bin/daxctl`, their libraries and loader, `usr/bin/busybox`.
    pub guest_tools: PathBuf,
    /// Root folders for the guest, on top of its tools: one with [`Options::packages`], if there are any.
    pub overlays: Vec<PathBuf>,
    /// UEFI firmware, a file for QEMU's `-bios`; only with [`Options::ovmf`].
    pub ovmf: Option<PathBuf>,
    /// Real data, [`CORPUS_BYTES`] long unless the user provided the file; `None` with [`Options::no_corpus`].
    pub corpus: Option<PathBuf>,
}

/// Finds or makes everything that a run needs.
///
/// Concurrent runs share the cache: one makes a product, the others wait for it. Killing a run does no harm.
pub fn provision(options: &Options, progress: &Progress) -> Result<Provisioned, ProvisionError> {
    let maker = Maker::new(options, progress)?;
    // Unusable user files stop the run before anything is fetched.
    maker.check_user_files()?;
    // When a step fails, the concurrent ones are stopped: their results would be useless.
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let beside = |name: &str| std::thread::Builder::new().name(name.into());
        let program = beside("guest-program").spawn_scoped(scope, || {
            stop_with(&stop);
            maker.guest_program()
        });
        let program = program.context("start a thread for", maker.cache.root())?;
        let fetching = beside("fetch").spawn_scoped(scope, || -> Result<_, ProvisionError> {
            Ok((maker.qemu()?, maker.ovmf()?, maker.guest_tools()?, maker.packages(&options.packages)?))
        });
        let fetching = fetching.context("start a thread for", maker.cache.root())?;
        let source = if maker.builds_a_package() { maker.patched_source().map(|_| ()) } else { Ok(()) };
        // A failed fetch is reported before minutes go into the kernel build.
        let fetched = join(fetching).and_then(|fetched| source.map(|()| fetched));
        stop.store(fetched.is_err(), Ordering::Relaxed);
        let (qemu, ovmf, guest_tools, packages) = fetched?;
        let maker = &maker;
        let code = qemu.clone();
        let corpus = beside("corpus").spawn_scoped(scope, move || match options.no_corpus {
            true => Ok(None),
            false => maker.corpus(&code).map(Some),
        });
        let corpus = corpus.context("start a thread for", maker.cache.root())?;
        let kernel = maker.kernel();
        stop.store(kernel.is_err(), Ordering::Relaxed);
        let kernel = kernel?;
        let (guest_program, corpus) = (join(program)?, join(corpus)?);
        Ok(Provisioned { qemu, kernel, guest_program, guest_tools, overlays: Vec::from_iter(packages), ovmf, corpus })
    })
}

/// Checks the user's files as far as possible without using them.
fn check_user_files(options: &Options) -> Result<(), ProvisionError> {
    kernel::check_user_files(options)?;
    if let Some(folder) = &options.guest_tools {
        guest_tools::check_user_folder(folder)?;
    }
    if let Some(file) = &options.corpus {
        existing(file, CORPUS_HINT)?;
    }
    if let Some(file) = &options.apt_sources {
        pins::read_small(file)?;
    }
    Ok(())
}

/// Joins a thread and passes on its panic, if any.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The pin file for these options.
///
/// # Errors
/// The options name none, and there is no checkout.
pub fn pins_file(options: &Options) -> Result<PathBuf, ProvisionError> {
    match &options.pins {
        Some(file) => Ok(file.clone()),
        None => Ok(Pins::path(&workspace()?)),
    }
}

/// Finds or fetches only QEMU.
pub fn qemu(options: &Options, progress: &Progress) -> Result<Qemu, ProvisionError> {
    Maker::new(options, progress)?.qemu()
}

/// Finds or builds only the guest kernel.
pub fn kernel(options: &Options, progress: &Progress) -> Result<Kernel, ProvisionError> {
    Maker::new(options, progress)?.kernel()
}

/// Finds or fetches only [`Options::packages`]: a root folder with them.
///
/// # Errors
/// The archive does not have them, or does not answer.
pub fn packages(options: &Options, progress: &Progress) -> Result<Option<PathBuf>, ProvisionError> {
    Maker::new(options, progress)?.packages(&options.packages)
}

/// The source of the guest kernel: the user's tree, or a package's with its patches.
///
/// # Errors
/// It is not known, as of a built kernel, or cannot be fetched.
pub fn kernel_source(options: &Options, progress: &Progress) -> Result<PathBuf, ProvisionError> {
    let maker = Maker::new(options, progress)?;
    match &options.kernel_tree {
        Some(tree) => Ok(tree.clone()),
        None if maker.builds_a_package() => Ok(maker.patched_source()?.tree),
        None => Err(ProvisionError::NoTests),
    }
}

/// Builds selftests of a kernel tree, with headers and libraries of these packages.
///
/// # Errors
/// The tree does not have them, or the packages cannot be fetched.
pub fn build_selftests(
    options: &Options,
    tree: &Path,
    collections: &[String],
    libraries: &[GuestPackage],
    progress: &Progress,
) -> Result<Kselftests, ProvisionError> {
    let maker = Maker::new(options, progress)?;
    let libraries = maker.packages(libraries)?.ok_or(ProvisionError::Absent)?;
    let mut step = progress.step(3, STEPS, "selftests");
    host_tools::ensure(&maker.cache, Work::Selftests, options.offline, &mut step)?;
    let built = kernel::kselftests::build(&maker.cache, tree, collections, &libraries, &mut step)?;
    let (tests, unbuilt) = built.collections.iter().fold((0, 0), |(tests, unbuilt), collection| {
        (tests + collection.tests.len(), unbuilt + collection.unbuilt.len())
    });
    step.done(&format!("{tests} tests, {unbuilt} programs not built"));
    Ok(built)
}

/// The built kernels in the cache, with their versions.
pub fn kernels(cache: &Cache) -> Result<Vec<(String, Entry)>, ProvisionError> {
    let version = |entry: &Entry| std::fs::read_to_string(entry.path.join("version")).ok();
    let named =
        |entry: &Entry| entry.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"kernel-"));
    let entries = cache.entries()?.into_iter().filter(named);
    Ok(entries.filter_map(|entry| Some((version(&entry)?.trim().to_owned(), entry))).collect())
}

struct Maker<'a> {
    cache: Cache,
    archive: Archive,
    options: &'a Options,
    progress: &'a Progress,
    pins: OnceLock<Pins>,
    own_qemu: OnceLock<Option<Qemu>>,
    /// The kernel source requested by name, once looked up.
    named: OnceLock<Pin>,
    /// Make nothing and use no network: a missing product is [`ProvisionError::Absent`].
    looking: bool,
}

impl<'a> Maker<'a> {
    fn new(options: &'a Options, progress: &'a Progress) -> Result<Maker<'a>, ProvisionError> {
        Ok(Maker::in_cache(Cache::open(options.cache_dir.as_deref())?, options, progress, false))
    }

    /// A maker that makes nothing and does not even need a cache.
    fn looking(options: &'a Options, progress: &'a Progress) -> Result<Maker<'a>, ProvisionError> {
        Ok(Maker::in_cache(Cache::at(options.cache_dir.as_deref())?, options, progress, true))
    }

    fn in_cache(cache: Cache, options: &'a Options, progress: &'a Progress, looking: bool) -> Maker<'a> {
        let archive = Archive::new(&cache, options.apt_sources.as_deref());
        Maker {
            cache,
            archive,
            options,
            progress,
            pins: OnceLock::new(),
            own_qemu: OnceLock::new(),
            named: OnceLock::new(),
            looking,
        }
    }

    fn pins(&self) -> Result<&Pins, ProvisionError> {
        if let Some(pins) = self.pins.get() {
            return Ok(pins);
        }
        let pins = Pins::read(&pins_file(self.options)?)?;
        Ok(self.pins.get_or_init(|| pins))
    }

    /// Checks everything that can stop a run before anything is fetched.
    fn check_user_files(&self) -> Result<(), ProvisionError> {
        self.own_qemu()?;
        check_user_files(self.options)?;
        self.pins().map(|_| ())
    }

    /// The user's QEMU, probed only once, because a probe starts it twice.
    fn own_qemu(&self) -> Result<Option<Qemu>, ProvisionError> {
        if let Some(qemu) = self.own_qemu.get() {
            return Ok(qemu.clone());
        }
        let qemu = qemu::of_the_user(self.options)?;
        Ok(self.own_qemu.get_or_init(|| qemu).clone())
    }

    fn qemu(&self) -> Result<Qemu, ProvisionError> {
        if let Some(qemu) = self.own_qemu()? {
            return Ok(qemu);
        }
        let made = self.pinned(&qemu::set(&self.pins()?.qemu), &|pins, _, product, step| {
            qemu::make(&self.cache, &self.archive, pins, product, step)
        })?;
        qemu::in_product(&made.folder)
    }

    /// UEFI firmware, if it is asked for.
    fn ovmf(&self) -> Result<Option<PathBuf>, ProvisionError> {
        if !self.options.ovmf {
            return Ok(None);
        }
        let set = firmware::set(&self.pins()?.ovmf);
        if set.pins.is_empty() {
            return Err(ProvisionError::BadPins { path: pins_file(self.options)?, why: "it does not pin ovmf".into() });
        }
        let made = self
            .pinned(&set, &|pins, _, product, step| firmware::make(&self.cache, &self.archive, pins, product, step))?;
        Ok(Some(firmware::in_product(&made.folder)))
    }

    fn kernel(&self) -> Result<Kernel, ProvisionError> {
        if let Some(image) = &self.options.kernel {
            return kernel::of_image(&self.cache, self.options, image);
        }
        if let Some(tree) = &self.options.kernel_tree {
            self.may_make()?;
            let mut step = self.progress.step(3, STEPS, "kernel");
            host_tools::ensure(&self.cache, Work::Kernel, self.options.offline, &mut step)?;
            let kernel = kernel::of_tree(&self.cache, tree, self.options, &mut step)?;
            step.done(&format!("Linux {}", kernel.version));
            return Ok(kernel);
        }
        if let Some(distribution) = self.options.kernel_distribution {
            return self.stock_kernel(distribution);
        }
        let source = self.patched_source()?;
        let fragment = kernel::fragment(self.options)?;
        let key = kernel::key(&source, &fragment, &self.options.build_modules)?;
        let product = self.made(3, "kernel", Product::Kernel, &key, |product, step| {
            host_tools::ensure(&self.cache, Work::Kernel, self.options.offline, step)?;
            kernel::make(&self.cache, &source, self.options, product, step)
        })?;
        kernel::in_product(&product, &source, self.options)
    }

    /// A distribution's kernel.
    fn stock_kernel(&self, distribution: Distribution) -> Result<Kernel, ProvisionError> {
        let set = kernel::distribution::set(distribution, self.pins()?);
        if set.pins.is_empty() {
            let (path, name) = (pins_file(self.options)?, distribution.name());
            return Err(ProvisionError::BadPins { path, why: format!("it pins no kernel of {name}") });
        }
        let made = self.pinned(&set, &|pins, _, product, step| {
            host_tools::ensure(&self.cache, Work::Modules, self.options.offline, step)?;
            kernel::distribution::make(&self.cache, &self.archive, pins, product, step)
        })?;
        kernel::distribution::in_product(&made.folder)
    }

    /// Whether the kernel is built from a source package.
    fn builds_a_package(&self) -> bool {
        let Options { kernel, kernel_tree, kernel_distribution, .. } = self.options;
        kernel.is_none() && kernel_tree.is_none() && kernel_distribution.is_none()
    }

    /// The patches for the source.
    fn series(&self) -> Result<kernel::Series, ProvisionError> {
        let package = match &self.options.kernel_package {
            _ if self.options.kernel_plain => None,
            KernelPackage::Pinned => self.pins()?.kernel().map(|pin| pin.package.clone()),
            KernelPackage::Named { package, .. } => Some(package.clone()),
            KernelPackage::Newest => Some(self.named_source()?.package),
        };
        let kernel = package.as_deref().and_then(|package| package.strip_prefix(kernel::SOURCE_PREFIX));
        let own = match kernel {
            Some(kernel) => kernel::StoredSeries::own()?.series(kernel)?,
            None => kernel::Series::default(),
        };
        Ok(own.then(kernel::Series::read(&self.options.series)?))
    }

    /// The source with its patches.
    fn patched_source(&self) -> Result<kernel::Source, ProvisionError> {
        let base = self.package_source()?;
        let series = self.series()?;
        if series.is_empty() {
            return Ok(base);
        }
        let key = series.key(&base.key);
        let product = self.made(2, "patched kernel source", Product::KernelSource, &key, |product, step| {
            host_tools::ensure(&self.cache, Work::Kernel, self.options.offline, step)?;
            let log = self.cache.log("kernel-series")?;
            series.apply(&base.tree, &kernel::source::in_product(product), &log, step)
        })?;
        Ok(kernel::Source { tree: kernel::source::in_product(&product), key })
    }

    /// Debian's source, without patches.
    fn package_source(&self) -> Result<kernel::Source, ProvisionError> {
        let series = self.series()?;
        let make: pinned::Make = &|pins, stands_in, product, step| {
            self.check_space()?;
            host_tools::ensure(&self.cache, Work::Kernel, self.options.offline, step)?;
            kernel::source::make(&self.cache, &self.archive, pins, product, step)?;
            // The patches are known to fit the pinned source. A substitute is kept only if they fit too.
            if stands_in && !series.is_empty() {
                series.fits(&kernel::source::in_product(product), &self.cache.log("kernel-series")?, step)?;
            }
            Ok(())
        };
        let fitting = series.key(&Key::of(&[])).to_string();
        let made = if self.options.kernel_package == KernelPackage::Pinned {
            let pins = &self.pins()?.kernel_source;
            let roots: Vec<&str> = pins.iter().map(|pin| pin.package.as_str()).collect();
            self.pinned(&kernel::source::set(pins, &roots, fitting), make)?
        } else {
            let pins = [self.named_source()?];
            self.pinned(&kernel::source::set(&pins, &[], fitting), make)?
        };
        Ok(kernel::Source { tree: kernel::source::in_product(&made.folder), key: made.key })
    }

    /// The package of a kernel source requested by name, or the newest one.
    ///
    /// An exact version in the cache needs no network. Otherwise the archive is queried; if that fails, the newest version
    /// in the cache is used, with a message.
    fn named_source(&self) -> Result<Pin, ProvisionError> {
        if let Some(pin) = self.named.get() {
            return Ok(pin.clone());
        }
        let asked = &self.options.kernel_package;
        let (package, version) = match asked {
            KernelPackage::Named { package, version } => (Some(package), version.as_ref()),
            _ => (None, None),
        };
        let fits = |pin: &Pin| {
            package.is_none_or(|package| *package == pin.package)
                && version.is_none_or(|version| *version == pin.version)
        };
        let cached = kernel::source::cached(&self.cache).into_iter().rfind(fits);
        let pin = match cached {
            Some(pin) if version.is_some() || self.options.offline || self.looking => pin,
            None if self.options.offline => return Err(ProvisionError::Offline { what: asked.to_string() }),
            cached => {
                self.may_make()?;
                match (self.offered_source(package, version), cached) {
                    (
                        Err(error @ (ProvisionError::Unreachable { .. } | ProvisionError::NoDebian { .. })),
                        Some(pin),
                    ) => {
                        self.progress.say(&format!("kernel source: {error}; taking {pin} from the cache"));
                        pin
                    }
                    (offered, _) => offered?,
                }
            }
        };
        Ok(self.named.get_or_init(|| pin).clone())
    }

    /// The newest or the given version of a kernel source in the archive; without a name, the source of the newest kernel.
    fn offered_source(&self, package: Option<&String>, version: Option<&String>) -> Result<Pin, ProvisionError> {
        let purpose = kernel::source::PURPOSE;
        let mut step = self.progress.step(2, STEPS, "kernel source");
        let names = kernel::source::sources(self.archive.names(purpose, kernel::source::PREFIX, &mut step)?);
        let unknown = |asked: String, have: Vec<String>| {
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            ProvisionError::NoSuchPackage { package: asked, have }
        };
        let name = match package {
            Some(package) => names.iter().find(|name| *name == package),
            None => names.last(),
        };
        let Some(name) = name else {
            return Err(unknown(self.options.kernel_package.to_string(), names));
        };
        let offers = self.archive.offers(purpose, &[name], &mut step)?;
        let found = offers.iter().find(|offer| version.is_none_or(|version| *version == offer.version)).cloned();
        let found = found.ok_or_else(|| {
            unknown(self.options.kernel_package.to_string(), offers.iter().map(Pin::exactly).collect())
        })?;
        step.done(&format!("the archive has {found}"));
        Ok(found)
    }

    fn guest_program(&self) -> Result<PathBuf, ProvisionError> {
        let workspace = workspace()?;
        let key = guest_program::key(&workspace)?;
        let product = self.made(4, "guest program", Product::GuestProgram, &key, |product, step| {
            host_tools::ensure(&self.cache, Work::Program, self.options.offline, step)?;
            guest_program::make(&self.cache, &workspace, self.options.offline, product, step)
        })?;
        Ok(guest_program::in_product(&product))
    }

    fn guest_tools(&self) -> Result<PathBuf, ProvisionError> {
        if let Some(folder) = &self.options.guest_tools {
            return guest_tools::check_user_folder(folder).map(|()| folder.clone());
        }
        let made = self.pinned(&guest_tools::set(&self.pins()?.guest_tools), &|pins, _, product, step| {
            guest_tools::make(&self.cache, &self.archive, pins, product, step)
        })?;
        Ok(guest_tools::in_product(&made.folder))
    }

    fn corpus(&self, qemu: &Qemu) -> Result<PathBuf, ProvisionError> {
        if let Some(file) = &self.options.corpus {
            return existing(file, CORPUS_HINT);
        }
        // QEMU's code and not the kernel's, which changes all the time: the corpus must not change with it.
        let machine_code = vec![qemu.root().unwrap_or(qemu.program()).to_owned()];
        let text = match &self.options.kernel_tree {
            Some(tree) => tree.canonicalize().context("find", tree)?,
            None => self.package_source()?.tree,
        };
        let sources = corpus::Sources { machine_code, text };
        let make = |product: &Path, step: &mut Step| corpus::make(&sources, product, step);
        Ok(corpus::in_product(&self.made(
            6,
            "corpus",
            Product::Corpus,
            &corpus::key(&sources, self.cache.root()),
            make,
        )?))
    }

    /// Finds a product, or makes it with a progress step.
    fn made(
        &self,
        number: usize,
        title: &str,
        product: Product,
        key: &Key,
        make: impl FnOnce(&Path, &mut Step) -> Result<(), ProvisionError>,
    ) -> Result<PathBuf, ProvisionError> {
        if let Some(folder) = self.cache.finished(product, key) {
            return Ok(folder);
        }
        self.may_make()?;
        let mut step = self.progress.step(number, STEPS, title);
        if self.cache.is_busy(product, key) {
            step.note("another run is making it; waiting");
        }
        let folder = self.or_no_space(self.cache.product(product, key, |folder| make(folder, &mut step)))?;
        step.done("ready");
        Ok(folder)
    }

    fn may_make(&self) -> Result<(), ProvisionError> {
        if self.looking { Err(ProvisionError::Absent) } else { Ok(()) }
    }

    /// Fails if there is too little disk space.
    fn check_space(&self) -> Result<(), ProvisionError> {
        let free_mib = self.free_mib()?;
        if free_mib < NEEDED_MIB {
            return Err(ProvisionError::NoSpace { path: self.cache.root().into(), free_mib, needed_mib: NEEDED_MIB });
        }
        Ok(())
    }

    /// Replaces the error of a step that filled the disk by [`ProvisionError::NoSpace`]. Its files are removed by now.
    fn or_no_space<T>(&self, made: Result<T, ProvisionError>) -> Result<T, ProvisionError> {
        made.map_err(|error| match self.free_mib() {
            Ok(free_mib) if error.is_full_disk() => {
                ProvisionError::NoSpace { path: self.cache.root().into(), free_mib, needed_mib: NEEDED_MIB }
            }
            _ => error,
        })
    }

    /// Free space for the cache in MiB, measured at its nearest existing folder.
    fn free_mib(&self) -> Result<u64, ProvisionError> {
        let root = self.cache.root();
        let path = root.ancestors().find(|folder| folder.is_dir()).unwrap_or(root);
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
