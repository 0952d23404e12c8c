//! The command line of `cxl-cram-device`.

use std::{ffi::OsString, io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use cxl_cram_kit::generate::{self, Shell};
use tracing_subscriber::EnvFilter;

use crate::{
    bench::{self, BenchArgs},
    serve::{self, ServeArgs},
};

/// A CXL Type-3 memory device that really compresses what the guest stores.
#[derive(Debug, Parser)]
#[command(name = "cxl-cram-device", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Bench(Box<BenchArgs>),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Print the completions of a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-device completions bash > ~/.local/share/bash-completion/completions/cxl-cram-device
  cxl-cram-device completions fish > ~/.config/fish/completions/cxl-cram-device.fish
  cxl-cram-device completions zsh  > FOLDER_OF_YOUR_FPATH/_cxl-cram-device")]
struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Write the manual: a page for the program, one for each command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-device man | man -l -            read the program's page
  cxl-cram-device man ~/.local/share/man/man1")]
struct ManArgs {
    /// Where to write them; otherwise the program's page goes to standard output
    folder: Option<PathBuf>,
}

/// The command line as data: what the program takes, for its documentation and its checks.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with these arguments (the first is the program's name) and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match Cli::parse_from(args).command {
        Command::Serve(args) => {
            log(args.verbose);
            serve::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(args) => bench::run(&args).map_err(anyhow::Error::from),
        Command::Completions(args) => {
            generate::print(&generate::completions(args.shell, command())).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(args) => generate::manual(command(), args.folder.as_deref()).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cxl-cram-device: {error:#}");
        ExitCode::FAILURE
    })
}

/// Starts logging to standard error.
fn log(verbose: u8) {
    let level = ["warn", "info", "trace"][usize::from(verbose.min(2))];
    let filter =
        EnvFilter::try_from_env("CXL_CRAM_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{level},fuser=warn")));
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
}
