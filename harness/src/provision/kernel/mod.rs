//! The guest kernel: configured from fragments, checked, built out of tree.
//!
//! Three ways lead to one: one of Debian's sources, patched or not, is built once and kept; a developer's own tree is
//! rebuilt by `make` as it changes; a kernel that is already built is taken as it is.

mod build;
mod config;
mod image;
mod mirror;
mod modules;
mod series;
pub(super) mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::config::BaseConfig;
use self::config::Fragment;
pub(super) use self::series::{Series, own as own_series};
pub use self::source::KernelPackage;
use super::Options;
use super::cache::{Cache, Key, remove};
use super::error::{IoContext, ProvisionError};
use super::progress::Step;
use super::run::new_log;

/// Raise when the way the kernel is built or laid out changes.
const RECIPE: &[u8] = b"3";
/// A first build of a big configuration may take hours.
const TREE_LOCK: Duration = Duration::from_secs(4 * 60 * 60);

/// The folder of modules in a product.
const MODULES: &str = "modules";

/// A guest kernel, ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Modules for the initramfs, in the order in which they are to be loaded; `cxl_acpi` is the last.
    pub modules: Vec<PathBuf>,
    /// Modules for the initramfs that are loaded only when a scenario asks for them.
    pub on_demand: Vec<PathBuf>,
    /// Its release, as `uname -r` prints it; empty for an image that does not tell.
    pub version: String,
    /// The finished configuration, if known.
    pub config: Option<PathBuf>,
    /// The unstripped ELF kernel for a debugger, if known.
    pub vmlinux: Option<PathBuf>,
    /// The source tree, if known.
    pub source: Option<PathBuf>,
    /// Whether it was built with the kernel's own checks.
    pub debug: bool,
}

impl Kernel {
    /// How many times slower it is than what limits are made for.
    pub fn patience(&self) -> u32 {
        if self.debug { 3 } else { 1 }
    }
}

/// A source in the cache.
pub(super) struct Source {
    pub(super) tree: PathBuf,
    /// What the tree was made from.
    pub(super) key: Key,
}

/// What a kernel from a source in the cache is configured from.
pub(super) fn fragment(options: &Options) -> Result<Fragment, ProvisionError> {
    Fragment::of_workspace(true, options.kernel_debug)
}

/// The key of the kernel built from this source with this fragment.
pub(super) fn key(source: &Source, fragment: &Fragment) -> Result<Key, ProvisionError> {
    let version = source::version(&source.tree)?;
    Ok(Key::of(&[
        ("recipe", RECIPE),
        ("source", source.key.to_string().as_bytes()),
        ("version", version.as_bytes()),
        ("options", fragment.text().as_bytes()),
    ]))
}

/// The kernel in a finished product.
pub(super) fn in_product(product: &Path, source: &Source, debug: bool) -> Result<Kernel, ProvisionError> {
    let recorded = product.join("version");
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    let (modules, on_demand) = modules::part(build::MODULES.iter().map(|module| kept(product, module)).collect());
    Ok(Kernel {
        image: product.join("bzImage"),
        modules,
        on_demand: on_demand.into_iter().filter(|module| module.is_file()).collect(),
        version: version.trim().to_owned(),
        config: Some(product.join("config")),
        vmlinux: Some(product.join("vmlinux")),
        source: Some(source.tree.clone()),
        debug,
    })
}

/// Builds the kernel into a product that keeps what is used and nothing else.
pub(super) fn make(
    cache: &Cache,
    source: &Source,
    fragment: &Fragment,
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let build = product.join("build");
    fs::create_dir(&build).context("create", &build)?;
    let log = cache.log("kernel")?;
    new_log(&log)?;
    let lost = build::configure(&source.tree, &build, None, fragment, &log, step)?;
    if !lost.unmet.is_empty() {
        return Err(ProvisionError::ConfigDropped { lines: lost.unmet });
    }
    if !lost.unknown.is_empty() {
        step.note(&format!("this kernel has no {}", lost.unknown.join(", ")));
    }
    let built = build::build(&source.tree, &build, &log, step)?;
    let modules = product.join(MODULES);
    fs::create_dir(&modules).context("create", &modules)?;
    for module in built {
        fs::rename(build.join(module), kept(product, module)).context("keep", Path::new(module))?;
    }
    for (from, to) in [
        (build::IMAGE, "bzImage"),
        (".config", "config"),
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        (build::RELEASE_FILE, "version"),
    ] {
        let from = build.join(from);
        fs::rename(&from, product.join(to)).context("keep", &from)?;
    }
    remove(&build)
}

/// Where a product keeps a module.
fn kept(product: &Path, module: &str) -> PathBuf {
    product.join(MODULES).join(Path::new(module).file_name().unwrap_or_default())
}

/// Builds a developer's tree in the cache, where `make` finds its objects again the next time.
///
/// The tree itself is only read, also one that was built in place.
pub(super) fn of_tree(
    cache: &Cache,
    tree: &Path,
    options: &Options,
    step: &mut Step,
) -> Result<Kernel, ProvisionError> {
    let tree = tree.canonicalize().context("find", tree)?;
    source::version(&tree)?;
    let base = match &options.kernel_config {
        Some(BaseConfig::Minimal) => None,
        Some(BaseConfig::File(file)) => Some(file.clone()),
        None => Some(tree.join(".config")).filter(|file| file.is_file()),
    };
    let what = base.as_ref().map_or("nothing".into(), |file| file.display().to_string());
    step.note(&format!("configured from {what}, with what the guest needs merged on top"));
    let base_text = base.map(|file| fs::read_to_string(&file).context("read", &file)).transpose()?;
    let fragment = Fragment::of_workspace(base_text.is_none(), options.kernel_debug)?;

    // Switching between configurations must not build everything anew each time.
    let flavour = [base_text.is_none(), options.kernel_debug].map(u8::from);
    let key = Key::of(&[("tree", tree.as_os_str().as_encoded_bytes()), ("flavour", &flavour)]);
    let name = format!("kernel-of-tree-{key}");
    let _lock = cache.lock(&name, TREE_LOCK)?;
    let folder = cache.scratch(&name)?;
    let build = cache.scratch(&format!("{name}/build"))?;
    let log = cache.log(&name)?;
    new_log(&log)?;

    let mut source = tree.clone();
    if mirror::is_built_in_place(&tree) {
        step.note("the tree was built in place: building from a view of its sources, the tree stays as it is");
        step.phase("linking its sources", 0);
        source = folder.join("view");
        mirror::update(&tree, &source, &folder.join("git"))?;
    }
    let lost = build::configure(&source, &build, base_text.as_deref(), &fragment, &log, step)?;
    // Options come and go between kernels: for a tree that is not ours this is news, not an error.
    if !lost.unmet.is_empty() {
        step.note(&format!("this tree's configuration dropped {}", lost.unmet.join(", ")));
    }
    if !lost.unknown.is_empty() {
        step.note(&format!("this tree has no {}", lost.unknown.join(", ")));
    }
    let built = build::build(&source, &build, &log, step)?;
    let (modules, on_demand) = modules::part(built.into_iter().map(|module| build.join(module)).collect());
    let recorded = build.join(build::RELEASE_FILE);
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    Ok(Kernel {
        image: build.join(build::IMAGE),
        modules,
        on_demand,
        version: version.trim().to_owned(),
        config: Some(build.join(".config")),
        vmlinux: Some(build.join("vmlinux")),
        source: Some(tree),
        debug: options.kernel_debug,
    })
}

/// The kernel that the user built.
pub(super) fn of_image(cache: &Cache, options: &Options, image: &Path) -> Result<Kernel, ProvisionError> {
    for file in options.kernel_modules.iter().map(PathBuf::as_path).chain([image]) {
        if !file.is_file() {
            return Err(ProvisionError::Missing { path: file.into(), hint: "name a bzImage and its modules".into() });
        }
    }
    let version = image::release(image)?;
    let mut modules = Vec::new();
    if let Some(folder) = &options.kernel_modules_dir {
        modules = modules::find(cache, folder, &version)?;
    }
    modules.extend(options.kernel_modules.iter().cloned());
    let (modules, on_demand) = modules::part(modules);
    Ok(Kernel {
        image: image.into(),
        modules,
        on_demand,
        version,
        config: None,
        vmlinux: None,
        source: None,
        debug: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_the_user_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        let error = of_image(&cache, &Options::default(), Path::new("/nonexistent/bzImage")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/bzImage is missing"), "{error}");
    }
}
