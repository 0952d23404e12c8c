//! `completions` and `man`: made from the command line's own description, so that they never differ from it.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;

/// Print the completions of a shell.
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

/// Write the manual: a page for the program, one for each command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness man | man -l -            read the program's page
  cxl-cram-harness man ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Where to write them; otherwise the program's page goes to standard output
    folder: Option<PathBuf>,
}

/// Prints completions.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut command = super::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// Writes manual pages.
pub(super) fn man(args: &ManArgs) -> Result<ExitCode> {
    match &args.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            clap_mangen::generate_to(super::command(), folder)
                .with_context(|| format!("cannot write to {}", folder.display()))?;
        }
        None => clap_mangen::Man::new(super::command()).render(&mut io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}
