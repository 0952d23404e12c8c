//! `completions` and `man`: generated from the command line's definition, so they always match it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use cxl_cram_kit::generate::{self, Shell};

use crate::lab::catalog::Catalog;

/// Print completions for a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness completions bash > ~/.local/share/bash-completion/completions/cxl-cram-harness
  cxl-cram-harness completions fish > ~/.config/fish/completions/cxl-cram-harness.fish
  cxl-cram-harness completions zsh  > FOLDER_OF_YOUR_FPATH/_cxl-cram-harness")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Write the manual: one page for the program, and one for each command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness man | man -l -            read the program's page
  cxl-cram-harness man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Where to write the pages [default: the program's page only, on standard output]
    folder: Option<PathBuf>,
}

/// Prints the completions.
pub(super) fn completions(args: &CompletionsArgs, catalog: &Catalog) -> Result<ExitCode> {
    generate::print(&generate::completions(args.shell, super::command(catalog)))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual pages.
pub(super) fn man(args: &ManArgs, catalog: &Catalog) -> Result<ExitCode> {
    generate::manual(super::command(catalog), args.folder.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
