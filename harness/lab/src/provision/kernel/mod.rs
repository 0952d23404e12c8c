//! Provides the guest kernel, configured from fragments and built outside of its tree.
//!
//! There are three kinds: a Debian source, patched or not, is built once and kept; a developer's own tree is rebuilt by
//! `make` as it changes; a built kernel is used as it is.

mod beside;
mod build;
mod checks;
mod config;
pub(super) mod distribution;
mod extras;
mod image;
pub mod kselftests;
mod mirror;
mod modules;
mod place;
mod remedies;
mod selftests;
mod series;
pub(super) mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::checks::Checks;
pub use self::config::BaseConfig;
use self::config::Fragment;
pub use self::distribution::Distribution;
pub use self::extras::{KernelOption, TreeModule};
pub(crate) use self::kselftests::IN_GUEST as KSELFTESTS_IN_GUEST;
pub use self::kselftests::{Collection, Kselftests, Selftest, Unbuilt};
pub use self::remedies::Remedies;
pub(crate) use self::selftests::IN_GUEST as SELFTESTS_IN_GUEST;
pub(super) use self::series::Series;
pub(crate) use self::series::stored::{Share, Stored as StoredSeries};
pub use self::source::KernelPackage;
pub(super) use self::source::PREFIX as SOURCE_PREFIX;
use super::Options;
use super::cache::{Cache, Key, Scratch, remove};
use super::error::{IoContext, ProvisionError};
use crate::process::run::new_log;
use cxl_cram_kit::progress::Step;

/// Raise when the way of building or the layout of the product changes.
const RECIPE: &[u8] = b"5";
/// A first build of a big configuration may take hours.
const TREE_LOCK: Duration = Duration::from_secs(4 * 60 * 60);

/// The folder of modules in a product.
const MODULES: &str = "modules";
/// The root folder with the selftests in a product, or below the objects of a tree.
const SELFTESTS: &str = "selftests";

/// A guest kernel, ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Modules to load at boot, in this order; `cxl_acpi` is the last.
    pub modules: Vec<PathBuf>,
    /// Modules that are loaded only on request of a scenario.
    pub on_demand: Vec<PathBuf>,
    /// The release, as `uname -r` prints it; empty if the image does not contain it.
    pub version: String,
    /// The finished configuration, if known.
    pub config: Option<PathBuf>,
    /// The unstripped ELF kernel for a debugger, if known.
    pub vmlinux: Option<PathBuf>,
    /// The list of built-in modules, if known.
    pub builtin: Option<PathBuf>,
    /// A root folder for the guest with the tree's selftests, if it has any.
    pub selftests: Option<PathBuf>,
    /// The source tree, if known.
    pub source: Option<PathBuf>,
    /// The checks of its own that the kernel was built with.
    pub checks: Option<Checks>,
    /// What a machine changes for this kernel.
    pub remedies: Remedies,
}

impl Kernel {
    /// Factor by which limits are extended for this kernel.
    pub fn patience(&self) -> u32 {
        self.checks.map_or(1, Checks::slowdown)
    }
}

/// A source in the cache.
pub(super) struct Source {
    pub(super) tree: PathBuf,
    /// The key of the tree's inputs.
    pub(super) key: Key,
}

/// The configuration fragment for a source in the cache.
pub(super) fn fragment(options: &Options) -> Result<Fragment, ProvisionError> {
    let own = Fragment::of_workspace(true, options.kernel_checks)?.with(extras::fragment(options)?);
    Ok(extras::wishes(options)?.with(own))
}

/// What is wished for, and nothing else asks for.
fn only_wished(options: &Options, minimal: bool) -> Result<Fragment, ProvisionError> {
    let own = Fragment::of_workspace(minimal, options.kernel_checks)?.with(extras::fragment(options)?);
    Ok(extras::wishes(options)?.besides(&own))
}

/// The key of a kernel built from this source with this fragment and these further modules.
pub(super) fn key(source: &Source, fragment: &Fragment, extra: &[TreeModule]) -> Result<Key, ProvisionError> {
    let (version, key, text) = (source::version(&source.tree)?, source.key.to_string(), fragment.text());
    let mut inputs = vec![
        ("recipe", RECIPE),
        ("source", key.as_bytes()),
        ("version", version.as_bytes()),
        ("options", text.as_bytes()),
    ];
    inputs.extend(extra.iter().map(|module| ("module", module.target().as_bytes())));
    Ok(Key::of(&inputs))
}

/// The kernel in a finished product.
pub(super) fn in_product(product: &Path, source: &Source, options: &Options) -> Result<Kernel, ProvisionError> {
    let recorded = product.join("version");
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    let built = build::MODULES.iter().map(|module| kept(product, module)).filter(|module| module.is_file());
    let (modules, mut on_demand) = modules::split(built.collect());
    on_demand.extend(options.build_modules.iter().map(|module| kept(product, module)));
    let config = Some(product.join("config"));
    Ok(Kernel {
        image: product.join("bzImage"),
        modules,
        on_demand,
        version: version.trim().to_owned(),
        remedies: remedies(config.as_deref())?,
        config,
        vmlinux: Some(product.join("vmlinux")),
        builtin: Some(product.join(build::BUILTIN)),
        selftests: selftests::found(product.join(SELFTESTS)),
        source: Some(source.tree.clone()),
        checks: options.kernel_checks,
    })
}

/// Builds the kernel into a product, which keeps only the files that are used.
pub(super) fn make(
    cache: &Cache,
    source: &Source,
    options: &Options,
    product: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    let (fragment, own) = (fragment(options)?, extras::fragment(options)?);
    let log = cache.log("kernel")?;
    new_log(&log)?;
    let place = place::of(&source.tree, product, &log, step)?;
    let (tree, build) = (&place.tree, place.build.clone());
    let mut lost = build::configure(tree, &build, None, &fragment, &log, step)?;
    lost.forgive(&only_wished(options, true)?);
    holds(&build, &own)?;
    if !lost.unmet.is_empty() && !own.is_empty() {
        step.note(&format!("with your options, this kernel's configuration dropped {}", lost.unmet.join(", ")));
    } else if !lost.unmet.is_empty() {
        return Err(ProvisionError::ConfigDropped { lines: lost.unmet });
    }
    if !lost.unknown.is_empty() {
        step.note(&format!("this kernel has no {}", lost.unknown.join(", ")));
    }
    let extra = &options.build_modules;
    let built = build::build(tree, &build, extra, &log, step)?;
    selftests::build(tree, &build, &product.join(SELFTESTS), &log, step)?;
    let modules = product.join(MODULES);
    fs::create_dir(&modules).context("create", &modules)?;
    for module in built.iter().map(Path::new).chain(extra.iter().map(AsRef::as_ref)) {
        place::keep(&build.join(module), &kept(product, module))?;
    }
    for (from, to) in [
        (build::IMAGE, "bzImage"),
        (".config", "config"),
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        (build::BUILTIN, build::BUILTIN),
        (build::RELEASE_FILE, "version"),
    ] {
        place::keep(&build.join(from), &product.join(to))?;
    }
    remove(&build)
}

/// The remedies for a kernel of this configuration.
fn remedies(config: Option<&Path>) -> Result<Remedies, ProvisionError> {
    let text = config.map(|file| fs::read_to_string(file).context("read", file)).transpose()?;
    Ok(Remedies::of(text.as_deref()))
}

/// The path of a module in a product.
fn kept(product: &Path, module: impl AsRef<Path>) -> PathBuf {
    product.join(MODULES).join(module.as_ref().file_name().unwrap_or_default())
}

/// Checks that a configuration has the user's lines.
fn holds(build: &Path, own: &Fragment) -> Result<(), ProvisionError> {
    let file = build.join(".config");
    let config = fs::read_to_string(&file).context("read", &file)?;
    match own.dropped(&config) {
        lines if lines.is_empty() => Ok(()),
        lines => Err(ProvisionError::OptionRefused { lines: lines.into_iter().map(str::to_owned).collect() }),
    }
}

/// Builds a developer's tree in the cache, where `make` finds its objects again the next time.
///
/// The tree itself is only read, even if it was built in place.
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
    let what = base.as_ref().map_or("an empty configuration".into(), |file| file.display().to_string());
    step.note(&format!("configured from {what}, with the guest's options merged on top"));
    let base_text = base.map(|file| fs::read_to_string(&file).context("read", &file)).transpose()?;
    let own = extras::fragment(options)?;
    let workspace = Fragment::of_workspace(base_text.is_none(), options.kernel_checks)?;
    let wished = only_wished(options, base_text.is_none())?;
    let fragment = wished.clone().with(workspace).with(own.clone());

    // Switching between configurations must not rebuild everything each time.
    let flavour = [u8::from(base_text.is_none()), options.kernel_checks.map_or(0, |checks| checks as u8 + 1)];
    let own_text = own.text();
    let mut inputs = vec![("tree", tree.as_os_str().as_encoded_bytes()), ("flavour", &flavour[..])];
    inputs.extend((!own.is_empty()).then_some(("options", own_text.as_bytes())));
    let wished_text = wished.text();
    inputs.extend((!wished.is_empty()).then_some(("wishes", wished_text.as_bytes())));
    let key = Key::of(&inputs);
    let scratch = Scratch::KernelOfTree(key);
    let name = scratch.name();
    let _lock = cache.lock(&name, TREE_LOCK)?;
    let folder = cache.scratch(scratch)?;
    if !place::make_can_name(&folder) {
        return Err(ProvisionError::UnbuildablePath { path: cache.root().into() });
    }
    let build = folder.join("build");
    fs::create_dir_all(&build).context("create", &build)?;
    let log = cache.log(&name)?;
    new_log(&log)?;

    let mut source = tree.clone();
    if mirror::is_built_in_place(&tree) {
        step.note("the tree was built in place; building from a view of its sources, without changing the tree");
        step.phase("linking its sources", 0);
        source = folder.join("view");
        mirror::update(&tree, &source, &folder.join("git"))?;
    }
    let mut lost = build::configure(&source, &build, base_text.as_deref(), &fragment, &log, step)?;
    lost.forgive(&wished);
    holds(&build, &own)?;
    // Options come and go between kernels, so in a user's tree this is not an error.
    if !lost.unmet.is_empty() {
        step.note(&format!("this tree's configuration dropped {}", lost.unmet.join(", ")));
    }
    if !lost.unknown.is_empty() {
        step.note(&format!("this tree has no {}", lost.unknown.join(", ")));
    }
    let extra = &options.build_modules;
    let built = build::build(&source, &build, extra, &log, step)?;
    selftests::build(&source, &build, &build.join(SELFTESTS), &log, step)?;
    let (modules, mut on_demand) = modules::split(built.into_iter().map(|module| build.join(module)).collect());
    on_demand.extend(extra.iter().map(|module| build.join(module)));
    let recorded = build.join(build::RELEASE_FILE);
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    let config = Some(build.join(".config"));
    Ok(Kernel {
        image: build.join(build::IMAGE),
        modules,
        on_demand,
        version: version.trim().to_owned(),
        remedies: remedies(config.as_deref())?,
        config,
        vmlinux: Some(build.join("vmlinux")),
        builtin: Some(build.join(build::BUILTIN)).filter(|list| list.is_file()),
        selftests: selftests::found(build.join(SELFTESTS)),
        source: Some(tree),
        checks: options.kernel_checks,
    })
}

/// Checks the user's image, modules and tree as far as possible without using them.
pub(super) fn check_user_files(options: &Options) -> Result<(), ProvisionError> {
    for file in options.kernel_modules.iter().chain(&options.kernel) {
        if !file.is_file() {
            return Err(ProvisionError::Missing { path: file.clone(), hint: "give a bzImage and its modules".into() });
        }
    }
    if let Some(tree) = &options.kernel_tree {
        source::version(tree)?;
    }
    Ok(())
}

/// The user's built kernel.
pub(super) fn of_image(cache: &Cache, options: &Options, image: &Path) -> Result<Kernel, ProvisionError> {
    check_user_files(options)?;
    let version = image::release(image)?;
    let mut modules = Vec::new();
    if let Some(folder) = &options.kernel_modules_dir {
        modules = modules::find(cache, folder, &version)?;
    }
    let folder = options.kernel_modules_dir.as_deref().map(|folder| modules::folder_of(folder, &version));
    let builtin = folder.as_deref().and_then(modules::builtin);
    let config = beside::config(image, folder.as_deref(), &version);
    modules.extend(options.kernel_modules.iter().cloned());
    let (modules, on_demand) = modules::split(modules);
    Ok(Kernel {
        image: image.into(),
        modules,
        on_demand,
        version,
        remedies: remedies(config.as_deref())?,
        config,
        vmlinux: None,
        builtin,
        selftests: None,
        source: None,
        checks: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_of_the_user_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        let options = Options { kernel: Some("/nonexistent/bzImage".into()), ..Options::default() };
        let error = of_image(&cache, &options, Path::new("/nonexistent/bzImage")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/bzImage is missing"), "{error}");
    }
}
