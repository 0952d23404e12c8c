//! `clean`: removes what the harness put into its cache.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use cxl_cram_kit::size::format_bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::out::outln;
use crate::process::interrupt::interrupted;
use crate::provision::{Cache, Entry};

/// How often to check for an interruption.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Remove what was fetched and built.
///
/// Touches only a folder that the harness marked as its cache, and in it only files with names that the harness gives.
/// Keeps what another run is making at this moment.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness clean                     list what there is, and ask
  cxl-cram-harness clean --yes               do not ask
  cxl-cram-harness clean --cache-dir /var/tmp/cram --yes")]
pub(super) struct CleanArgs {
    /// The cache [default: $XDG_CACHE_HOME/cxl-cram]
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,

    /// Remove without asking; required without a terminal
    #[arg(short, long)]
    yes: bool,
}

/// Removes the harness's entries from the cache.
pub(super) fn clean(args: &CleanArgs) -> Result<ExitCode> {
    let cache = Cache::existing(args.cache_dir.as_deref())?;
    let entries = cache.entries()?;
    for foreign in cache.strangers()? {
        eprintln!("left alone: {} (the harness did not make it)", foreign.display());
    }
    if entries.is_empty() {
        outln!("nothing to remove in {}", cache.root().display());
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed(&cache, &entries)? {
        outln!("nothing was removed");
        return Ok(ExitCode::SUCCESS);
    }
    for entry in cache.clean()? {
        outln!("removed {} ({})", entry.path.display(), format_bytes(entry.bytes));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists what would be removed, and asks.
fn confirmed(cache: &Cache, entries: &[Entry]) -> Result<bool> {
    for entry in entries {
        outln!("{:>10}  {}", format_bytes(entry.bytes), entry.path.display());
    }
    if !std::io::stdin().is_terminal() {
        bail!("cannot ask without a terminal; give --yes to remove these {} entries", entries.len());
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    print!("Remove these {} from {}? [y/N] ", format_bytes(bytes), cache.root().display());
    std::io::stdout().flush()?;
    // A terminal is readable once a line is complete; until then, check for Ctrl-C.
    let stdin = std::io::stdin();
    while !readable(&stdin) {
        if interrupted() {
            outln!("");
            return Ok(false);
        }
    }
    let mut answer = String::new();
    stdin.read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn readable(stdin: &std::io::Stdin) -> bool {
    matches!(poll(&mut [PollFd::new(stdin, PollFlags::IN)], Some(&POLL)), Ok(ready) if ready > 0)
}
