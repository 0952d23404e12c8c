//! `series`: shows, makes and stores this project's own patches, which are stored once for several kernels.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::out::outln;
use crate::provision::{Share, StoredSeries};

/// Show this project's kernel patches, or make the patches for one kernel.
#[derive(Args, Clone, Debug)]
pub(super) struct SeriesCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    List(ListArgs),
    Make(MakeArgs),
    Split(SplitArgs),
}

/// Show every patch: the lines that are the same for every kernel, and those for each.
#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write the patches for one kernel, as `git am` takes them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness series make 7.3 /tmp/series
  git -C linux am /tmp/series/*/*.patch            # first private-nodes, then cram

`git range-diff` shows what differs from one kernel to another, patch by patch: docs/private-nodes.md has the lines.")]
struct MakeArgs {
    /// The kernel: 7.3, or a release of it, 6.12.107
    #[arg(value_name = "KERNEL")]
    kernel: String,

    /// An empty or new folder for them, which gets one folder a series
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Store the patches for one kernel, made by `git format-patch`, in place of those that are stored for it.
///
/// The files that a series creates must be the same for every kernel, and so must the messages. If they differ from what is
/// stored, nothing is written; the kernel that leads replaces them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  git format-patch --zero-commit -N --abbrev=12 -o /tmp/series/private-nodes base..private-nodes
  git format-patch --zero-commit -N --abbrev=12 -o /tmp/series/cram private-nodes..cram
  cxl-cram-harness series split 7.3 /tmp/series --leads")]
struct SplitArgs {
    /// The kernel that the patches are for: 7.3
    #[arg(value_name = "KERNEL")]
    kernel: String,

    /// The folder with a folder of patches for each series
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,

    /// Replace what is the same for every kernel, too
    #[arg(long)]
    leads: bool,
}

/// Shows, makes or stores the series.
pub(super) fn series(command: &SeriesCommand) -> Result<ExitCode> {
    let stored = StoredSeries::own()?;
    match &command.action {
        Action::List(args) => list(&stored, args)?,
        Action::Make(args) => {
            let patches = stored.make(&args.kernel, &args.folder)?;
            outln!("{patches} patches for {} in {}", args.kernel, args.folder.display());
        }
        Action::Split(args) => {
            let patches = stored.split(&args.kernel, &args.folder, args.leads)?;
            outln!("{patches} patches stored for {}", args.kernel);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(stored: &StoredSeries, args: &ListArgs) -> Result<()> {
    let (kernels, shares) = (stored.kernels()?, stored.shares()?);
    if args.json {
        let row = |share: &Share| json!({ "series": share.series, "patch": share.patch, "shared": share.shared, "kernels": share.kernels });
        outln!("{}", serde_json::to_string_pretty(&shares.iter().map(row).collect::<Vec<_>>())?);
        return Ok(());
    }
    let line = |shared: &str, own: &mut dyn Iterator<Item = String>, name: &str| {
        let own: String = own.map(|lines| format!("{lines:>8}")).collect();
        outln!("{shared:>8}{own}  {name}");
    };
    line("shared", &mut kernels.iter().cloned(), "patch");
    for share in &shares {
        let own = |kernel| share.kernels.get(kernel).map_or("-".to_owned(), usize::to_string);
        line(&share.shared.to_string(), &mut kernels.iter().map(own), &format!("{}/{}", share.series, share.patch));
    }
    let total =
        |kernel: &String| shares.iter().filter_map(|share| share.kernels.get(kernel)).sum::<usize>().to_string();
    let shared: usize = shares.iter().map(|share| share.shared).sum();
    line(&shared.to_string(), &mut kernels.iter().map(total), "changed lines in all");
    Ok(())
}
