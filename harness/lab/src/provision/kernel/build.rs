//! Configures and builds a kernel outside of its tree.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::config::{Fragment, Lost};
use super::extras::TreeModule;
use crate::process::run::{Limits, run};
use crate::provision::error::{IoContext, ProvisionError};
use cxl_cram_kit::progress::Step;

/// The modules, in load order; everything else is built in. The first must load after PCI has claimed its resources. The next
/// two are built in where the kernel allows it; from Linux 7.1 on they cannot be where the first is a module. The others are
/// loaded on request of a scenario: two come with this project's series, one with any kernel.
pub(super) const MODULES: [&str; 6] = [
    "drivers/cxl/cxl_acpi.ko",
    "drivers/dax/hmem/dax_hmem.ko",
    "drivers/dax/dax_cxl.ko",
    "drivers/cxl/cxl_cram.ko",
    "drivers/cxl/cxl_mempolicy_sample.ko",
    "lib/test_hmm.ko",
];
/// The options of these modules.
const OPTIONS: [&str; 6] = [
    "CONFIG_CXL_ACPI",
    "CONFIG_DEV_DAX_HMEM",
    "CONFIG_DEV_DAX_CXL",
    "CONFIG_CXL_CRAM",
    "CONFIG_CXL_MEMPOLICY_SAMPLE",
    "CONFIG_TEST_HMM",
];
pub(super) const IMAGE: &str = "arch/x86/boot/bzImage";
/// The list of built-in modules, beside the image.
pub(super) const BUILTIN: &str = "modules.builtin";
pub(super) const RELEASE_FILE: &str = "include/config/kernel.release";

/// Rough number of lines that a full build prints, for the progress bar.
const ROUGH_LINES: u64 = 2_060;
const CONFIG_LIMITS: Limits = Limits::minutes(15, 10);
pub(super) const BUILD_LIMITS: Limits = Limits::minutes(240, 20);

/// Configures from the fragment, on top of `base` if given. Returns the lines that Kconfig dropped.
pub(super) fn configure(
    source: &Path,
    build: &Path,
    base: Option<&str>,
    fragment: &Fragment,
    log: &Path,
    step: &mut Step,
) -> Result<Lost, ProvisionError> {
    step.phase("configuring", 0);
    let configured = build.join(".config");
    let mut make = kernel_make(source, build);
    match base {
        None => {
            let file = build.join("cxl-cram.config");
            fs::write(&file, fragment.text()).context("write", &file)?;
            make.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &file);
        }
        Some(base) => {
            fs::write(&configured, fragment.over(base)).context("write", &configured)?;
            make.arg("olddefconfig");
        }
    }
    run("configuring the kernel", make, log, CONFIG_LIMITS, |line| step.advance(0, line.trim()))?;
    let config = fs::read_to_string(&configured).context("read", &configured)?;
    let mut dropped = fragment.dropped(&config);
    dropped.retain(|line| !is_module_instead(line, &config));
    Lost::of(&dropped, source)
}

/// Whether what a line wants built in has become one of the modules that are built, too.
fn is_module_instead(line: &str, config: &str) -> bool {
    let option = line.strip_suffix("=y").filter(|option| OPTIONS.contains(option));
    option.is_some_and(|option| is_module(option, config))
}

fn is_module(option: &str, config: &str) -> bool {
    config.lines().any(|line| line.strip_prefix(option) == Some("=m"))
}

/// Builds the image, the configured modules and the `extra` ones. Returns the configured modules.
pub(super) fn build(
    source: &Path,
    build: &Path,
    extra: &[TreeModule],
    log: &Path,
    step: &mut Step,
) -> Result<Vec<&'static str>, ProvisionError> {
    step.phase("building", ROUGH_LINES);
    let configured = build.join(".config");
    let modules = modules(&fs::read_to_string(&configured).context("read", &configured)?);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let named: Vec<&str> = modules.iter().copied().chain(extra.iter().map(TreeModule::target)).collect();
    // Beside the image, make builds one module after the other, and none finds the symbols of another.
    for targets in [["bzImage"].as_slice(), &named] {
        let mut make = kernel_make(source, build);
        make.arg(format!("-j{cores}")).args(targets);
        run("building the kernel", make, log, BUILD_LIMITS, |line| {
            step.advance(u64::from(is_target(line)), line.trim());
        })?;
    }
    Ok(modules)
}

/// The modules in a configuration.
fn modules(config: &str) -> Vec<&'static str> {
    // The first is always needed. If the configuration lacks it, make reports that.
    let wanted = |index: usize| index == 0 || is_module(OPTIONS[index], config);
    MODULES.into_iter().enumerate().filter(|(index, _)| wanted(*index)).map(|(_, module)| module).collect()
}

/// `make` for the kernel, without the user's variables for other kernels.
pub(super) fn kernel_make(source: &Path, build: &Path) -> Command {
    let mut make = Command::new("make");
    let mut output = std::ffi::OsString::from("O=");
    output.push(build);
    make.arg("-C").arg(source).arg(output);
    for variable in ["ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS", "MFLAGS", "LOCALVERSION"]
    {
        make.env_remove(variable);
    }
    // For reproducible builds.
    make.envs([("KBUILD_BUILD_USER", "cxl-cram"), ("KBUILD_BUILD_HOST", "cxl-cram"), ("KBUILD_BUILD_VERSION", "1")]);
    make.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC");
    make
}

/// Whether a line of make's output reports a target ("  CC      mm/swap.o").
fn is_target(line: &str) -> bool {
    line.strip_prefix("  ")
        .and_then(|line| line.split_once(' '))
        .is_some_and(|(verb, _)| !verb.is_empty() && verb.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_modules_are_built() {
        assert_eq!(modules("CONFIG_CXL_ACPI=m\n# CONFIG_CXL_CRAM is not set\n"), MODULES[..1]);
        assert_eq!(modules("CONFIG_CXL_ACPI=m\nCONFIG_CXL_CRAM=m\n"), [MODULES[0], MODULES[3]]);
        assert_eq!(modules("CONFIG_CXL_CRAM_DEBUG=m\nCONFIG_CXL_MEMPOLICY_SAMPLE=m\n"), [MODULES[0], MODULES[4]]);
        assert_eq!(modules("CONFIG_DEV_DAX_HMEM=m\nCONFIG_DEV_DAX_CXL=y\n"), MODULES[..2]);
    }

    #[test]
    fn what_can_only_be_a_module_is_not_lost_if_it_is_built() {
        let config = "CONFIG_DEV_DAX_CXL=m\nCONFIG_SWAP=m\n";
        assert!(is_module_instead("CONFIG_DEV_DAX_CXL=y", config));
        assert!(!is_module_instead("CONFIG_SWAP=y", config));
        assert!(!is_module_instead("CONFIG_DEV_DAX_HMEM=y", config));
    }

    #[test]
    fn lines_of_make_that_name_a_target_are_counted() {
        assert!(is_target("  CC      drivers/cxl/core/region.o"));
        assert!(is_target("  CHKSHA1 include/linux/atomic/atomic-arch-fallback.h"));
        assert!(!is_target("make[1]: Entering directory '/x'"));
        assert!(!is_target("  warning: something"));
        assert!(!is_target("Kernel: arch/x86/boot/bzImage is ready  (#1)"));
    }
}
