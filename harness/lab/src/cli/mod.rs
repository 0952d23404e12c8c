//! The command line of `cxl-cram-harness`: one file for each command, and one for each group of shared options.

mod acpi;
mod boot;
mod clean;
mod doctor;
mod exit;
mod generate;
mod kernel;
mod list;
mod machine;
mod out;
mod pins;
mod qemu;
mod report;
mod run;
mod scenario_name;
mod selection;
mod selftest;
mod series;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::lab::catalog::Catalog;
use crate::process::interrupt;
use crate::rig::device::entry;

/// Boots a guest kernel on a compressed CXL device and compares what the kernel did with snapshots.
///
/// Without a command, it does `run`.
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
    Selftest(Box<selftest::SelftestArgs>),
    Doctor(Box<doctor::DoctorArgs>),
    Kernel(kernel::KernelCommand),
    Report(report::ReportCommand),
    Acpi(acpi::AcpiArgs),
    Qemu(qemu::QemuArgs),
    Pins(pins::PinsCommand),
    Series(series::SeriesCommand),
    Clean(clean::CleanArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// The command line as data, for documentation and checks.
pub fn command(catalog: &Catalog) -> clap::Command {
    scenario_name::offered(Cli::command(), catalog).name(catalog.program)
}

/// Runs the program and returns its exit code. Call it first in `main`, before any thread starts. The program is also
/// the device: it starts itself again with a different first argument.
pub fn main(catalog: &Catalog) -> ExitCode {
    entry().unwrap_or_else(|| carry_out(catalog))
}

fn carry_out(catalog: &Catalog) -> ExitCode {
    let filter = EnvFilter::try_from_env("CXL_CRAM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = Cli::from_arg_matches(&command(catalog).get_matches()).unwrap_or_else(|error| error.exit());
    let command = cli.command.unwrap_or_else(|| Command::Run(Box::default()));
    run::quieten_insta();
    if let Err(error) = interrupt::install() {
        tracing::warn!("Ctrl-C will end this program without cleaning up: {error}");
    }
    let outcome = match command {
        Command::Run(args) => run::run(&args, catalog),
        Command::List(args) => list::list(&args, catalog),
        Command::Boot(args) => boot::boot(&args, catalog),
        Command::Selftest(args) => selftest::selftest(&args, catalog),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Kernel(command) => kernel::kernel(&command),
        Command::Report(command) => report::report(&command),
        Command::Acpi(args) => acpi::acpi(&args),
        Command::Qemu(args) => qemu::qemu(&args),
        Command::Pins(command) => pins::pins(&command, catalog),
        Command::Series(command) => series::series(&command),
        Command::Clean(args) => clean::clean(&args),
        Command::Completions(args) => generate::completions(&args, catalog),
        Command::Man(args) => generate::man(&args, catalog),
    };
    let outcome = outcome.and_then(|code| match out::trouble() {
        Some(error) => Err(anyhow::anyhow!("cannot write to standard output: {error}")),
        None => Ok(code),
    });
    let code = outcome.unwrap_or_else(|error| exit::report(&error));
    if interrupt::interrupted() { ExitCode::from(interrupt::EXIT_CODE) } else { code }
}
