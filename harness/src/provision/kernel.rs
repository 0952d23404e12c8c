//! The guest kernel: configured from a fragment, checked, built out of tree.
//!
//! Three ways lead to one: Debian's source is built once and kept; a developer's own tree is rebuilt by `make` as it
//! changes; a kernel that is already built is taken as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Options;
use super::cache::{Cache, Key, remove};
use super::error::{IoContext, ProvisionError};
use super::kernel_config::{dropped, options};
use super::kernel_source;
use super::progress::Step;
use super::run::{Limits, new_log, run};

/// Raise when the way the kernel is built or laid out changes.
const RECIPE: &[u8] = b"2";
/// Lines that a whole build prints, roughly: the bar's hundred per cent.
const ROUGH_LINES: u64 = 1_880;
const CONFIG_LIMITS: Limits = Limits::minutes(15, 10);
const BUILD_LIMITS: Limits = Limits::minutes(240, 20);
/// The one module: it must load after PCI has claimed its resources.
const MODULE: &str = "drivers/cxl/cxl_acpi.ko";
const IMAGE: &str = "arch/x86/boot/bzImage";
const RELEASE_FILE: &str = "include/config/kernel.release";

/// A guest kernel, ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Modules for the initramfs, in the order in which they are to be loaded: `cxl_acpi.ko`.
    pub modules: Vec<PathBuf>,
    /// Its release, as `uname -r` prints it; empty for a kernel that the user built.
    pub version: String,
    /// The finished configuration, if known.
    pub config: Option<PathBuf>,
    /// The unstripped ELF kernel for a debugger, if known.
    pub vmlinux: Option<PathBuf>,
    /// The unpacked source tree, if known.
    pub source: Option<PathBuf>,
}

/// The fragment that the guest kernel is configured from.
pub(super) fn fragment() -> PathBuf {
    super::workspace().join("guest-tests/kernel/linux-6.12.config")
}

/// The key of the kernel built from this source with this fragment.
pub(super) fn key(source: &Path) -> Result<Key, ProvisionError> {
    let fragment = fragment();
    let text = fs::read_to_string(&fragment).context("read", &fragment)?;
    let version = kernel_source::version(source)?;
    let options = options(&text).collect::<Vec<_>>().join("\n");
    Ok(Key::of(&[("recipe", RECIPE), ("options", options.as_bytes()), ("version", version.as_bytes())]))
}

/// The kernel in a finished product.
pub(super) fn in_product(product: &Path, source: &Path) -> Result<Kernel, ProvisionError> {
    let recorded = product.join("version");
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    Ok(Kernel {
        image: product.join("bzImage"),
        modules: vec![product.join("modules/cxl_acpi.ko")],
        version: version.trim().to_owned(),
        config: Some(product.join("config")),
        vmlinux: Some(product.join("vmlinux")),
        source: Some(source.to_owned()),
    })
}

/// Builds the kernel into a product that keeps what is used and nothing else.
pub(super) fn make(cache: &Cache, source: &Path, product: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    let build = product.join("build");
    fs::create_dir(&build).context("create", &build)?;
    let log = cache.log("kernel")?;
    let lost = configure(source, &build, &log, step)?;
    if !lost.is_empty() {
        return Err(ProvisionError::ConfigDropped { lines: lost, fragment: fragment() });
    }
    build_all(source, &build, &log, step)?;
    let modules = product.join("modules");
    fs::create_dir(&modules).context("create", &modules)?;
    for (from, to) in [
        (IMAGE, "bzImage"),
        (MODULE, "modules/cxl_acpi.ko"),
        (".config", "config"),
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        (RELEASE_FILE, "version"),
    ] {
        let from = build.join(from);
        fs::rename(&from, product.join(to)).context("keep", &from)?;
    }
    remove(&build)
}

/// Builds a developer's tree in the cache, where `make` finds its objects again the next time.
pub(super) fn of_tree(cache: &Cache, tree: &Path, step: &mut Step) -> Result<Kernel, ProvisionError> {
    let tree = tree.canonicalize().context("find", tree)?;
    kernel_source::version(&tree)?;
    let name = format!("kernel-of-tree-{}", Key::of(&[("tree", tree.as_os_str().as_encoded_bytes())]));
    let _lock = cache.lock(&name, std::time::Duration::from_secs(4 * 60 * 60))?;
    let build = cache.scratch(&name)?;
    let log = cache.log(&name)?;
    let lost = configure(&tree, &build, &log, step)?;
    if !lost.is_empty() {
        // Options come and go between kernels: for a tree that is not ours this is news, not an error.
        step.note(&format!("this tree's configuration dropped {}", lost.join(", ")));
    }
    build_all(&tree, &build, &log, step)?;
    if !build.join(MODULE).is_file() {
        let hint = format!("CONFIG_CXL_ACPI=m does not hold in {}", tree.display());
        return Err(ProvisionError::Missing { path: build.join(MODULE), hint });
    }
    let recorded = build.join(RELEASE_FILE);
    let version = fs::read_to_string(&recorded).context("read", &recorded)?;
    Ok(Kernel {
        image: build.join(IMAGE),
        modules: vec![build.join(MODULE)],
        version: version.trim().to_owned(),
        config: Some(build.join(".config")),
        vmlinux: Some(build.join("vmlinux")),
        source: Some(tree),
    })
}

/// The kernel that the user built.
pub(super) fn of_image(options: &Options, image: &Path) -> Result<Kernel, ProvisionError> {
    for file in options.kernel_modules.iter().map(PathBuf::as_path).chain([image]) {
        if !file.is_file() {
            return Err(ProvisionError::Missing { path: file.into(), hint: "name a bzImage and its modules".into() });
        }
    }
    let modules = options.kernel_modules.clone();
    Ok(Kernel { image: image.into(), modules, version: String::new(), config: None, vmlinux: None, source: None })
}

/// Configures from the fragment. Returns the lines of it that did not survive.
fn configure(source: &Path, build: &Path, log: &Path, step: &mut Step) -> Result<Vec<String>, ProvisionError> {
    new_log(log)?;
    let fragment = fragment();
    let text = fs::read_to_string(&fragment).context("read", &fragment)?;
    step.phase("configuring", 0);
    let mut make = kernel_make(source, build);
    make.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragment);
    run("configuring the kernel", &mut make, log, CONFIG_LIMITS, |line| step.advance(0, line.trim()))?;
    let configured = build.join(".config");
    let config = fs::read_to_string(&configured).context("read", &configured)?;
    Ok(dropped(&text, &config).into_iter().map(str::to_owned).collect())
}

fn build_all(source: &Path, build: &Path, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
    step.phase("building", ROUGH_LINES);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut make = kernel_make(source, build);
    make.args([&format!("-j{cores}"), "bzImage", "modules"]);
    run("building the kernel", &mut make, log, BUILD_LIMITS, |line| {
        step.advance(u64::from(is_target(line)), line.trim());
    })
}

/// `make` for the kernel, free of what the user's environment says about other kernels.
fn kernel_make(source: &Path, build: &Path) -> Command {
    let mut make = Command::new("make");
    let mut output = std::ffi::OsString::from("O=");
    output.push(build);
    make.arg("-C").arg(source).arg(output);
    for variable in ["ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS", "MFLAGS", "LOCALVERSION"]
    {
        make.env_remove(variable);
    }
    // The same source gives the same kernel for everybody.
    make.envs([("KBUILD_BUILD_USER", "cxl-cram"), ("KBUILD_BUILD_HOST", "cxl-cram"), ("KBUILD_BUILD_VERSION", "1")]);
    make.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC");
    make
}

/// Whether a line of make's output stands for one finished target ("  CC      mm/swap.o").
fn is_target(line: &str) -> bool {
    line.strip_prefix("  ")
        .and_then(|line| line.split_once(' '))
        .is_some_and(|(verb, _)| !verb.is_empty() && verb.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_make_that_name_a_target_are_counted() {
        assert!(is_target("  CC      drivers/cxl/core/region.o"));
        assert!(is_target("  CHKSHA1 include/linux/atomic/atomic-arch-fallback.h"));
        assert!(!is_target("make[1]: Entering directory '/x'"));
        assert!(!is_target("  warning: something"));
        assert!(!is_target("Kernel: arch/x86/boot/bzImage is ready  (#1)"));
    }

    #[test]
    fn a_kernel_of_the_user_must_exist() {
        let error = of_image(&Options::default(), Path::new("/nonexistent/bzImage")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/bzImage is missing"), "{error}");
    }

    #[test]
    fn the_fragment_makes_cxl_acpi_a_module_and_lists_each_option_once() {
        let text = fs::read_to_string(fragment()).unwrap();
        assert!(text.lines().any(|line| line == "CONFIG_CXL_ACPI=m"));
        let mut options: Vec<&str> = text.lines().filter(|line| line.starts_with("CONFIG_")).collect();
        let all = options.len();
        options.sort_unstable();
        options.dedup();
        assert_eq!(options.len(), all);
    }
}
