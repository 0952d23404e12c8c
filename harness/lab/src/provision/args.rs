//! The command line's options for provisioning.

use std::path::PathBuf;

use clap::Args;

use super::{BaseConfig, Checks, Distribution, GuestPackage, KernelOption, KernelPackage, Options, TreeModule};

/// Sources of packages, and the cache.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Fetching and keeping")]
pub struct FetchArgs {
    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Fetch the packages that this file pins [default: harness/pins.toml of the checkout]
    #[arg(long, value_name = "FILE", env = "CXL_CRAM_PINS")]
    pins: Option<PathBuf>,

    /// A sources.list of where to fetch packages from [default: the Debian archive that apt is configured with]
    #[arg(long, value_name = "FILE", env = "CXL_CRAM_APT_SOURCES")]
    apt_sources: Option<PathBuf>,

    /// Use only the cache, never the network
    #[arg(long)]
    offline: bool,
}

/// The user's QEMU.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
pub struct QemuSource {
    /// A QEMU >= 10.1 with vfio-user-pci [default: the one on PATH, else Debian's, fetched]
    #[arg(long, value_name = "PROGRAM", env = "CXL_CRAM_QEMU")]
    qemu: Option<PathBuf>,
}

/// The kernel to build or use.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
pub struct KernelSource {
    /// The kernel source to build: a Debian package, PACKAGE=VERSION, `newest`, or `pinned` [default: pinned]
    #[arg(long, value_name = "PACKAGE", conflicts_with_all = ["kernel", "kernel_tree"])]
    kernel_package: Option<KernelPackage>,

    /// A distribution's own kernel, as it is: nothing is built, and scenarios that need our patches are skipped
    #[arg(long, value_enum, value_name = "NAME")]
    #[arg(conflicts_with_all = ["kernel", "kernel_tree", "kernel_package", "plain", "series", "kernel_debug"])]
    kernel_distribution: Option<Distribution>,

    /// Do not apply this project's own patches (guest-tests/kernel/series)
    #[arg(long, conflicts_with_all = ["kernel", "kernel_tree"])]
    plain: bool,

    /// An additional folder of *.patch files to apply to that source; may be given more than once
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["kernel", "kernel_tree"])]
    series: Vec<PathBuf>,

    /// A kernel source tree; it is built in a separate folder and not modified
    #[arg(long, value_name = "FOLDER", conflicts_with = "kernel")]
    kernel_tree: Option<PathBuf>,

    /// Base configuration for the tree: a file, or `minimal` [default: the tree's .config, else minimal]
    #[arg(long, value_name = "FILE", requires = "kernel_tree", conflicts_with_all = ["kernel", "kernel_package"])]
    kernel_config: Option<BaseConfig>,

    /// Set an option of the kernel that is built: NAME=y, m, n, a number or a quoted text; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["kernel", "kernel_distribution"])]
    kernel_option: Vec<KernelOption>,

    /// A file of such options; may be given more than once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "kernel_distribution"])]
    kernel_fragment: Vec<PathBuf>,

    /// Also build this module of the kernel's tree, which the guest loads on request; may be given more than once
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kernel", "kernel_distribution"])]
    build_module: Vec<TreeModule>,

    /// Build the kernel with its own checks
    #[arg(long, value_name = "CHECKS", num_args = 0..=1, require_equals = true, default_missing_value = "usual")]
    #[arg(conflicts_with = "kernel")]
    kernel_debug: Option<Checks>,

    /// A built kernel (a bzImage)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The folder of that kernel's modules, as installed (lib/modules/VERSION) or as built
    #[arg(long, value_name = "FOLDER", requires = "kernel", conflicts_with_all = ["kernel_tree", "kernel_package"])]
    modules: Option<PathBuf>,

    /// An additional module of that kernel, in load order; may be given more than once
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with_all = ["kernel_tree", "kernel_package"])]
    module: Vec<PathBuf>,
}

/// Everything that a guest needs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
pub struct ProvisionArgs {
    #[command(flatten)]
    qemu: QemuSource,

    #[command(flatten)]
    kernel: KernelSource,

    /// A folder with usr/bin/cxl and its libraries, instead of Debian's packages
    #[arg(long, value_name = "FOLDER")]
    guest_tools: Option<PathBuf>,

    /// Debian packages for the guest, with all that they depend on: NAME or NAME=VERSION, separated by commas; may be given more
    /// than once
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    packages: Vec<GuestPackage>,

    /// A file of real data to fill guest memory with
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    #[command(flatten)]
    fetch: FetchArgs,
}

impl FetchArgs {
    /// The options for these arguments; all others are the defaults.
    pub fn options(&self) -> Options {
        let own = self.clone();
        Options {
            cache_dir: own.cache_dir,
            pins: own.pins,
            apt_sources: own.apt_sources,
            offline: own.offline,
            ..Options::default()
        }
    }

    /// The same arguments with another pin file.
    pub fn with_pins(&self, file: PathBuf) -> FetchArgs {
        FetchArgs { pins: Some(file), ..self.clone() }
    }
}

impl QemuSource {
    /// Adds these arguments to the options.
    pub fn add_to(&self, options: Options) -> Options {
        Options { qemu: self.qemu.clone(), ..options }
    }
}

impl KernelSource {
    /// Adds these arguments to the options.
    pub fn add_to(&self, options: Options) -> Options {
        let own = self.clone();
        Options {
            kernel_package: own.kernel_package.unwrap_or_default(),
            kernel_distribution: own.kernel_distribution,
            kernel_plain: own.plain,
            series: own.series,
            kernel_tree: own.kernel_tree,
            kernel_config: own.kernel_config,
            kernel_fragments: own.kernel_fragment,
            kernel_options: own.kernel_option,
            build_modules: own.build_module,
            kernel_checks: own.kernel_debug,
            kernel: own.kernel,
            kernel_modules_dir: own.modules,
            kernel_modules: own.module,
            ..options
        }
    }
}

impl ProvisionArgs {
    /// The options for these arguments.
    pub fn options(&self) -> Options {
        let options = self.kernel.add_to(self.qemu.add_to(self.fetch.options()));
        let own = self.clone();
        Options { guest_tools: own.guest_tools, packages: own.packages, corpus: own.corpus, ..options }
    }

    /// The same arguments with other sources and cache.
    pub fn fetched(&self, fetch: FetchArgs) -> ProvisionArgs {
        ProvisionArgs { fetch, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        provision: ProvisionArgs,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.provision.options()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_arguments_the_pinned_kernel_is_built() {
        let options = parse("").unwrap();
        assert_eq!(options.kernel_package, KernelPackage::Pinned);
        assert!(options.kernel.is_none() && options.kernel_tree.is_none() && options.kernel_checks.is_none());
    }

    #[test]
    fn each_kind_of_kernel_takes_its_own_options() {
        let options = parse("--kernel k/bzImage --modules m --module a.ko --module b.ko").unwrap();
        assert_eq!(options.kernel_modules_dir.as_deref(), Some(Path::new("m")));
        assert_eq!(options.kernel_modules, [Path::new("a.ko"), Path::new("b.ko")]);
        let options = parse("--kernel-package newest --series one --series two --kernel-debug").unwrap();
        assert_eq!(options.kernel_package, KernelPackage::Newest);
        assert_eq!(options.kernel_checks, Some(Checks::Usual));
        assert_eq!(parse("--kernel-debug=kasan").unwrap().kernel_checks, Some(Checks::Kasan));
        assert_eq!(options.series, [Path::new("one"), Path::new("two")]);
        let options = parse("--kernel-distribution debian-backports").unwrap();
        assert_eq!(options.kernel_distribution, Some(Distribution::DebianBackports));
        let options = parse("--kernel-tree t --kernel-config minimal").unwrap();
        assert_eq!(options.kernel_config, Some(BaseConfig::Minimal));
        let options = parse("--kernel-tree t --kernel-config b/.config").unwrap();
        assert_eq!(options.kernel_config, Some(BaseConfig::File("b/.config".into())));
    }

    #[test]
    fn two_kernels_at_once_are_refused() {
        for line in [
            "--kernel k --kernel-tree t",
            "--kernel k --kernel-package newest",
            "--kernel-tree t --kernel-package newest",
            "--kernel-tree t --series s",
            "--kernel k --kernel-debug",
            "--kernel-debug kasan",
            "--kernel-debug=none",
            "--kernel-tree t --modules m",
            "--kernel-package newest --module a.ko",
            "--kernel k --kernel-config minimal",
            "--kernel-config minimal",
            "--kernel-package 7.3",
            "--kernel k --kernel-option KSM=y",
            "--kernel-distribution debian --build-module drivers/cxl/x.ko",
            "--kernel-option KSM",
            "--kernel-distribution plan9",
            "--kernel-distribution debian --kernel-tree t",
            "--kernel-distribution debian --plain",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
