//! `pins`: shows the versions that a run fetches, tries the series on others, and moves the pins to newer ones.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use console::style;
use serde_json::json;

use super::out::outln;
use crate::lab::catalog::Catalog;
use crate::process::interrupt::interrupted;
use crate::provision::{
    Candidates, Distribution, FetchArgs, PinState, Pins, Progress, Verdict, candidates, fit_of, pin_states, pins_file,
};

/// Show the versions that a run fetches, try the series on others, or move the pins.
#[derive(Args, Clone, Debug)]
pub(super) struct PinsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    Show(ShowArgs),
    Check(CheckArgs),
    Move(Box<MoveArgs>),
}

/// Show what is pinned, whether it is cached, and the newest version in the archive.
#[derive(Args, Clone, Debug)]
struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// Try the series on every version of the kernel source in the archive.
///
/// Builds nothing and keeps no source. Takes about half a minute for each version.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit code: 0 when the series fits every version, else 1.")]
struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// Try everything newer than the pins, and pin what passes.
///
/// Tries the series on every newer kernel source. Builds the newest one that it fits, fetches the newest QEMU and guest
/// tools, and runs the scenarios on all three. If a scenario fails, runs them again with each of the three alone, to find
/// out which one is at fault. Writes what passes to the pin file, for you to review and commit.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness pins move
  cxl-cram-harness pins move --dry-run              only show what would change
  cxl-cram-harness pins move -- --skip soak -j 1    arguments for `run`

Exit code: 0 when every newer version fits and passes (or there is none), else 1.")]
struct MoveArgs {
    /// Try the series, but run no scenario and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Arguments for `run`, which runs the scenarios
    #[arg(last = true)]
    run: Vec<String>,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// Shows, checks or moves the pins.
pub(super) fn pins(command: &PinsCommand, catalog: &Catalog) -> Result<ExitCode> {
    match &command.action {
        Action::Show(args) => show(args),
        Action::Check(args) => check(args),
        Action::Move(args) => move_pins(args, catalog),
    }
}

fn show(args: &ShowArgs) -> Result<ExitCode> {
    let (states, why) = pin_states(&args.fetch.options(), &Progress::stderr())?;
    if args.json {
        outln!(
            "{}",
            serde_json::to_string_pretty(&json!({ "pins": states.iter().map(described).collect::<Vec<_>>() }))?
        );
    } else {
        outln!("{:<16}  {:<33}  {:<24}  {:<6}  newest", "thing", "package", "pinned", "cached");
        for PinState { what, package, pinned, cached, newest } in &states {
            let cached = if *cached { "yes" } else { "no" };
            outln!("{what:<16}  {package:<33}  {pinned:<24}  {cached:<6}  {}", newest.as_deref().unwrap_or("unknown"));
        }
    }
    if let Some(why) = why {
        eprintln!("{} {why}", style("newest versions unknown:").yellow().for_stderr());
    }
    Ok(ExitCode::SUCCESS)
}

/// The state as `doctor --json` and `pins show --json` print it.
pub(super) fn described(state: &PinState) -> serde_json::Value {
    let PinState { what, package, pinned, cached, newest } = state;
    json!({ "what": what, "package": package, "pinned": pinned, "cached": cached, "newest": newest })
}

fn check(args: &CheckArgs) -> Result<ExitCode> {
    let tried = fit_of(&args.fetch.options(), &Progress::stderr())?;
    if args.json {
        let all: Vec<_> = tried
            .iter()
            .map(|(version, verdict)| {
                let why = if let Verdict::Unfit(why) = verdict { Some(why) } else { None };
                json!({ "version": version, "fits": why.is_none(), "why": why })
            })
            .collect();
        outln!("{}", serde_json::to_string_pretty(&json!({ "versions": all }))?);
    } else {
        print_verdicts(&tried);
    }
    let unfit = tried.iter().any(|(_, verdict)| *verdict != Verdict::Fits);
    Ok(if unfit { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_verdicts(tried: &[(String, Verdict)]) {
    for (version, verdict) in tried {
        let verdict = match verdict {
            Verdict::Fits => style(verdict.to_string()).green(),
            Verdict::Unfit(_) => style(verdict.to_string()).red(),
        };
        outln!("{version}  {verdict}");
    }
}

fn move_pins(args: &MoveArgs, catalog: &Catalog) -> Result<ExitCode> {
    let options = args.fetch.options();
    let file = pins_file(&options)?;
    // Refuse bad arguments now rather than after minutes of fetching.
    run_arguments(args, None)?.check(catalog)?;
    let found = candidates(&options, &Progress::stderr())?;
    print_verdicts(&found.tried);
    let changes = found.changes();
    changes.iter().for_each(|change| outln!("{change}"));
    if changes.is_empty() {
        outln!("the pins are the newest that fit");
        return Ok(code(!found.has_unfit()));
    }
    if args.dry_run {
        outln!("{} pins would change in {}", changes.len(), file.display());
        return Ok(code(!found.has_unfit()));
    }
    let (passing, failing) = passing(args, catalog, &found)?;
    for part in &failing {
        outln!("{} scenarios fail with the newer {part}; its pin stays", style("not pinned:").red().bold());
    }
    if passing != found.old {
        write(&file, &passing)?;
        outln!("pinned in {}; review and commit it", file.display());
    }
    Ok(code(failing.is_empty() && !found.has_unfit()))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The pins with which the scenarios pass, and the parts whose newer version makes them fail.
fn passing(args: &MoveArgs, catalog: &Catalog, found: &Candidates) -> Result<(Pins, Vec<&'static str>)> {
    let (old, new) = (&found.old, &found.new);
    let (mut passing, mut failing) = built_passing(args, catalog, old, new)?;
    // Scenarios run on one kernel at a time: a distribution's is tried by itself.
    for distribution in Distribution::ALL {
        let newer = distribution.pinned(new);
        if newer == distribution.pinned(old) {
            continue;
        }
        let mut pins = passing.clone();
        newer.clone_into(distribution.pinned_mut(&mut pins));
        outln!("with the newer {}:", distribution.title());
        if scenarios_pass(args, catalog, &pins, Some(distribution))? {
            passing = pins;
        } else {
            failing.push(distribution.title());
        }
    }
    Ok((passing, failing))
}

/// As [`passing`], of what a run with a kernel that it builds fetches.
fn built_passing(args: &MoveArgs, catalog: &Catalog, old: &Pins, new: &Pins) -> Result<(Pins, Vec<&'static str>)> {
    let kernels = (old.kernel_debian.clone(), old.kernel_debian_backports.clone());
    let all = Pins { kernel_debian: kernels.0, kernel_debian_backports: kernels.1, ..new.clone() };
    if all == *old || scenarios_pass(args, catalog, &all, None)? {
        return Ok((all, Vec::new()));
    }
    let alone = [
        ("kernel source", Pins { kernel_source: new.kernel_source.clone(), ..old.clone() }),
        ("QEMU", Pins { qemu: new.qemu.clone(), ..old.clone() }),
        ("guest tools", Pins { guest_tools: new.guest_tools.clone(), ..old.clone() }),
    ];
    let changed: Vec<_> = alone.into_iter().filter(|(_, pins)| pins != old).collect();
    if let [(part, _)] = &changed[..] {
        return Ok((old.clone(), vec![part]));
    }
    let (mut passing, mut failing) = (old.clone(), Vec::new());
    for (part, pins) in changed {
        outln!("with the newer {part} alone:");
        if scenarios_pass(args, catalog, &pins, None)? {
            match part {
                "QEMU" => passing.qemu = pins.qemu,
                "guest tools" => passing.guest_tools = pins.guest_tools,
                _ => passing.kernel_source = pins.kernel_source,
            }
        } else {
            failing.push(part);
        }
    }
    if failing.is_empty() {
        bail!("nothing is pinned: each newer version passes alone, but together they fail");
    }
    Ok((passing, failing))
}

/// The arguments of `run` after `--`.
fn run_arguments(args: &MoveArgs, distribution: Option<Distribution>) -> Result<Box<super::run::RunArgs>> {
    for word in &args.run {
        let option = word.split('=').next().unwrap_or_default();
        if ["--failed", "--cache-dir", "--pins", "--apt-sources", "--offline"].contains(&option) {
            bail!("{option} is not allowed after --; give it before --, or leave it out if `pins move` refuses it");
        }
    }
    let words = ["cxl-cram-harness", "run"].into_iter().chain(args.run.iter().map(String::as_str));
    let kernel = distribution.map(|distribution| ["--kernel-distribution", distribution.name()]);
    let words = words.chain(kernel.into_iter().flatten());
    match super::Cli::try_parse_from(words).context("`run` does not take what comes after --")?.command {
        Some(super::Command::Run(run)) => Ok(run),
        _ => bail!("`run` does not take what comes after --"),
    }
}

/// Runs the scenarios with these pins, on the kernel of a distribution if one is given; returns whether they pass.
fn scenarios_pass(args: &MoveArgs, catalog: &Catalog, pins: &Pins, distribution: Option<Distribution>) -> Result<bool> {
    let mut file = tempfile::Builder::new()
        .prefix("pins-")
        .suffix(".toml")
        .tempfile()
        .context("cannot create a temporary file")?;
    write!(file, "{pins}").context("cannot write the pins to try")?;
    let mut run = run_arguments(args, distribution)?;
    run.fetch(args.fetch.with_pins(PathBuf::from(file.path())));
    let outcome = super::run::run(&run, catalog);
    if interrupted() {
        bail!("interrupted; nothing is pinned");
    }
    match outcome.context("nothing is pinned: the scenarios cannot run")? {
        ExitCode::SUCCESS => Ok(true),
        ExitCode::FAILURE => Ok(false),
        _ => bail!("nothing is pinned: the scenarios cannot run"),
    }
}

/// Replaces the file atomically.
fn write(file: &std::path::Path, pins: &Pins) -> Result<()> {
    // A symbolic link stays; its target is replaced.
    let file = &file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    let mut new =
        tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    write!(new, "{pins}")
        .and_then(|()| {
            let permissions = std::fs::metadata(file)?.permissions();
            new.as_file().set_permissions(permissions)
        })
        .with_context(|| format!("cannot write {}", file.display()))?;
    new.persist(file).with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(())
}
