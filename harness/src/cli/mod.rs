//! The command line of `cxl-cram-harness`: one file a command, and one for each group of options they share.

mod acpi;
mod boot;
mod clean;
mod doctor;
mod generate;
mod kernel;
mod list;
mod machine;
mod report;
mod run;
mod selection;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use console::style;
use tracing_subscriber::EnvFilter;

use crate::interrupt;

/// Boots a guest kernel on a compressed CXL device and holds what the kernel did against snapshots.
///
/// Without a command it does `run`.
#[derive(Debug, Parser)]
#[command(name = "cxl-cram-harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    List(list::ListArgs),
    Boot(Box<boot::BootArgs>),
    Doctor(doctor::DoctorArgs),
    Kernel(kernel::KernelCommand),
    Report(report::ReportCommand),
    Acpi(acpi::AcpiArgs),
    Clean(clean::CleanArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// The command line as data: what the program takes, for its documentation and its checks.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CXL_CRAM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let command = Cli::parse().command.unwrap_or_else(|| Command::Run(Box::default()));
    if let Command::Run(args) = &command
        && args.for_machines()
    {
        // insta would print differences there; they are in every report.
        // SAFETY: there is no other thread yet.
        unsafe { std::env::set_var("INSTA_OUTPUT", "none") };
    }
    if let Err(error) = interrupt::install() {
        tracing::warn!("Ctrl-C will end this at once: {error}");
    }
    let outcome = match command {
        Command::Run(args) => run::run(&args),
        Command::List(args) => list::list(&args),
        Command::Boot(args) => boot::boot(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Kernel(command) => kernel::kernel(&command),
        Command::Report(command) => report::report(&command),
        Command::Acpi(args) => acpi::acpi(&args),
        Command::Clean(args) => clean::clean(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
        ExitCode::FAILURE
    });
    if interrupt::interrupted() { ExitCode::from(interrupt::EXIT_CODE) } else { code }
}
