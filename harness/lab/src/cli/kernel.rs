//! `kernel`: builds and lists guest kernels, without a guest.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use cxl_cram_kit::size::format_bytes;

use super::out::outln;
use crate::provision;
use crate::provision::{Cache, FetchArgs, KernelSource, Progress};

/// Build a guest kernel, or list those that are built.
#[derive(Args, Clone, Debug)]
pub(super) struct KernelCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
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
    kernel: KernelSource,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// Show the kernels that are built and cached.
#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<std::path::PathBuf>,
}

/// Builds a kernel, or lists the cached ones.
pub(super) fn kernel(command: &KernelCommand) -> Result<ExitCode> {
    match &command.action {
        Action::Build(args) => {
            let kernel = provision::kernel(&args.kernel.add_to(args.fetch.options()), &Progress::stderr())?;
            outln!("version  {}", kernel.version);
            outln!("image    {}", kernel.image.display());
            let modules = kernel.modules.iter().chain(&kernel.on_demand);
            modules.for_each(|module| outln!("module   {}", module.display()));
            if let Some(config) = &kernel.config {
                outln!("config   {}", config.display());
            }
        }
        Action::List(args) => {
            for (version, entry) in provision::kernels(&Cache::at(args.cache_dir.as_deref())?)? {
                outln!("{version:<12} {:>10}  {}", format_bytes(entry.bytes), entry.path.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
