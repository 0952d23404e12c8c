//! `clean`: the cache, emptied.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use cxl_cram_device::size::format_bytes;

use crate::provision::Cache;

/// Remove everything that was fetched and built.
///
/// What another run is making at this moment stays.
#[derive(Args, Clone, Debug)]
pub(super) struct CleanArgs {
    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,
}

/// Does it.
pub(super) fn clean(args: &CleanArgs) -> Result<ExitCode> {
    for entry in Cache::open(args.cache_dir.as_deref())?.clean()? {
        println!("removed {} ({})", entry.path.display(), format_bytes(entry.bytes));
    }
    Ok(ExitCode::SUCCESS)
}
