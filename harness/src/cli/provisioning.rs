//! What is brought along instead of being fetched or built.

use std::path::PathBuf;

use clap::Args;

use crate::provision::Options;

/// What is brought along instead of being fetched or built.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bring your own")]
pub(super) struct ProvisionArgs {
    /// A QEMU >= 10.1 with vfio-user-pci [default: the one on PATH, else Debian's, fetched]
    #[arg(long, value_name = "PROGRAM", env = "CXL_CRAM_QEMU")]
    qemu: Option<PathBuf>,

    /// A kernel source tree: configured and built in a folder of its own, the tree itself is left alone
    #[arg(long, value_name = "FOLDER", conflicts_with = "kernel")]
    kernel_tree: Option<PathBuf>,

    /// A kernel that is built: a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// A module of that kernel, in load order (cxl_acpi.ko); may be given more than once
    #[arg(long, value_name = "FILE", requires = "kernel")]
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
    /// As provisioning takes them.
    pub(super) fn options(&self) -> Options {
        let own = self.clone();
        Options {
            qemu: own.qemu,
            kernel_tree: own.kernel_tree,
            kernel: own.kernel,
            kernel_modules: own.module,
            guest_tools: own.guest_tools,
            corpus: own.corpus,
            cache_dir: own.cache_dir,
            offline: own.offline,
        }
    }
}
