//! The command line's options for what is brought along instead of being fetched or built.

use std::path::PathBuf;

use clap::Args;

use super::{BaseConfig, KernelPackage, Options};

/// What is brought along instead of being fetched or built.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
pub struct ProvisionArgs {
    /// A QEMU >= 10.1 with vfio-user-pci [default: the one on PATH, else Debian's, fetched]
    #[arg(long, value_name = "PROGRAM", env = "CXL_CRAM_QEMU")]
    qemu: Option<PathBuf>,

    /// The kernel source to fetch and build: a package of Debian, or `newest` [default: linux-source-6.12]
    #[arg(long, value_name = "PACKAGE", conflicts_with_all = ["kernel", "kernel_tree"])]
    kernel_package: Option<KernelPackage>,

    /// Do not apply this project's own patches (guest-tests/kernel/series) to linux-source-6.12
    #[arg(long, conflicts_with_all = ["kernel", "kernel_tree"])]
    plain: bool,

    /// A further folder of *.patch files to apply to that source first; may be given more than once
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["kernel", "kernel_tree"])]
    series: Vec<PathBuf>,

    /// A kernel source tree: configured and built in a folder of its own, the tree itself is left alone
    #[arg(long, value_name = "FOLDER", conflicts_with = "kernel")]
    kernel_tree: Option<PathBuf>,

    /// What the tree's configuration starts from: a file, or `minimal` [default: the tree's .config, else minimal]
    #[arg(long, value_name = "FILE", requires = "kernel_tree", conflicts_with_all = ["kernel", "kernel_package"])]
    kernel_config: Option<BaseConfig>,

    /// Build the kernel with its own checks: lock order, lists, memory management
    #[arg(long, conflicts_with = "kernel")]
    kernel_debug: bool,

    /// A kernel that is built: a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The modules of that kernel, as installed (lib/modules/VERSION) or as built: what the guest needs is found there
    #[arg(long, value_name = "FOLDER", requires = "kernel", conflicts_with_all = ["kernel_tree", "kernel_package"])]
    modules: Option<PathBuf>,

    /// One more module of that kernel, in load order; may be given more than once
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with_all = ["kernel_tree", "kernel_package"])]
    module: Vec<PathBuf>,

    /// A folder with usr/bin/cxl and its libraries, instead of Debian's packages
    #[arg(long, value_name = "FOLDER")]
    guest_tools: Option<PathBuf>,

    /// A file of real data to fill guest memory with
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Use what is in the cache, never the network
    #[arg(long)]
    offline: bool,
}

impl ProvisionArgs {
    /// The options that these arguments stand for.
    pub fn options(&self) -> Options {
        let own = self.clone();
        Options {
            qemu: own.qemu,
            kernel_package: own.kernel_package.unwrap_or_default(),
            kernel_plain: own.plain,
            series: own.series,
            kernel_tree: own.kernel_tree,
            kernel_config: own.kernel_config,
            kernel_debug: own.kernel_debug,
            kernel: own.kernel,
            kernel_modules_dir: own.modules,
            kernel_modules: own.module,
            guest_tools: own.guest_tools,
            corpus: own.corpus,
            cache_dir: own.cache_dir,
            offline: own.offline,
        }
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
    fn without_arguments_the_long_term_kernel_is_built() {
        let options = parse("").unwrap();
        assert_eq!(options.kernel_package, KernelPackage::Named("linux-source-6.12".into()));
        assert!(options.kernel.is_none() && options.kernel_tree.is_none() && !options.kernel_debug);
    }

    #[test]
    fn each_way_to_a_kernel_goes_with_what_belongs_to_it() {
        let options = parse("--kernel k/bzImage --modules m --module a.ko --module b.ko").unwrap();
        assert_eq!(options.kernel_modules_dir.as_deref(), Some(Path::new("m")));
        assert_eq!(options.kernel_modules, [Path::new("a.ko"), Path::new("b.ko")]);
        let options = parse("--kernel-package newest --series one --series two --kernel-debug").unwrap();
        assert_eq!(options.kernel_package, KernelPackage::Newest);
        assert_eq!(options.series, [Path::new("one"), Path::new("two")]);
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
            "--kernel-tree t --modules m",
            "--kernel-package newest --module a.ko",
            "--kernel k --kernel-config minimal",
            "--kernel-config minimal",
            "--kernel-package 7.3",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
