//! `kernel`: a guest kernel, without a guest.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use cxl_cram_device::size::format_bytes;

use crate::provision::{self, Cache, Progress, ProvisionArgs};

/// Guest kernels: build one, list what is built.
#[derive(Args, Clone, Debug)]
pub(super) struct KernelCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Build(Box<BuildArgs>),
    List(ListArgs),
}

/// Build the kernel that `run` would boot, and print where it is.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness kernel build
  cxl-cram-harness kernel build --kernel-package newest
  cxl-cram-harness kernel build --kernel-tree ~/linux --kernel-debug")]
struct BuildArgs {
    #[command(flatten)]
    provision: ProvisionArgs,
}

/// Show the kernels that are built and cached.
#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<std::path::PathBuf>,
}

/// Does it.
pub(super) fn kernel(command: &KernelCommand) -> Result<ExitCode> {
    match &command.what {
        What::Build(args) => {
            let kernel = provision::kernel(&args.provision.options(), &Progress::stderr())?;
            println!("version  {}", kernel.version);
            println!("image    {}", kernel.image.display());
            let modules = kernel.modules.iter().chain(&kernel.on_demand);
            modules.for_each(|module| println!("module   {}", module.display()));
            if let Some(config) = &kernel.config {
                println!("config   {}", config.display());
            }
        }
        What::List(args) => {
            for (version, entry) in provision::kernels(&Cache::open(args.cache_dir.as_deref())?)? {
                println!("{version:<12} {:>10}  {}", format_bytes(entry.bytes), entry.path.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
