//! `doctor`: what this machine has and lacks for a run, with a remedy for each.

use std::{fs::OpenOptions, io::IsTerminal, process::ExitCode};

use anyhow::Result;
use clap::Args;
use console::style;
use cxl_cram_kit::size::format_bytes;
use serde_json::json;

use super::out::outln;
use crate::machine::config;
use crate::machine::config::Accel;
use crate::play::schedule::usual_memory;
use crate::provision::{Finding, PinState, Progress, ProvisionArgs, on_path, pin_states, survey};
use crate::rig::obstacle;

/// Show what this machine has and lacks, and what to do about it.
///
/// Builds and changes nothing. Unless --offline is given, it asks the package archive for newer versions.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness doctor
  cxl-cram-harness doctor --offline --json     can `run` work without a network?

Exit code: 0 when `run` with the same options can work, else 1.")]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    provision: ProvisionArgs,
}

/// Prints the findings.
pub(super) fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let mut findings = vec![
        ("processor", processor()),
        ("KVM", kvm()),
        ("memory", memory()),
        ("/dev/fuse", obstacle().map_or_else(|| Finding::Ready("opens".into()), Finding::Lacking)),
        ("mounting", mounting()),
    ];
    let options = args.provision.options();
    findings.extend(survey(&options)?);
    findings.push(("terminal", terminal()));
    let (pins, newest_unknown) = pin_states(&options, &Progress::quiet())?;
    let fit = !findings.iter().any(|(_, finding)| matches!(finding, Finding::Lacking(_)));
    if args.json {
        let all: Vec<_> = findings.iter().map(|(what, finding)| described(what, finding)).collect();
        outln!(
            "{}",
            serde_json::to_string_pretty(&json!({
                "fit": fit,
                "findings": all,
                "pins": pins.iter().map(super::pins::described).collect::<Vec<_>>(),
            }))?
        );
    } else {
        for (what, finding) in &findings {
            let (mark, text) = match finding {
                Finding::Ready(text) => (style("ok     ").green(), text),
                Finding::Later(text) => (style("note   ").yellow(), text),
                Finding::Lacking(text) => (style("lacking").red().bold(), text),
            };
            outln!("{mark}  {what:<15}  {text}");
        }
        for PinState { what, pinned, cached, newest, .. } in &pins {
            let cached = if *cached { "cached" } else { "not cached" };
            let newest = newest.as_deref().unwrap_or("unknown");
            outln!("{}  {:<15}  {what}: pinned {pinned}, {cached}; newest {newest}", style("pin    ").cyan(), "");
        }
        if let Some(why) = newest_unknown.filter(|_| !options.offline) {
            outln!("{}  {:<15}  newest versions unknown: {why}", style("note   ").yellow(), "");
        }
    }
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn described(what: &str, finding: &Finding) -> serde_json::Value {
    let (state, text) = match finding {
        Finding::Ready(text) => ("ready", text),
        Finding::Later(text) => ("note", text),
        Finding::Lacking(text) => ("lacking", text),
    };
    json!({ "what": what, "state": state, "text": text })
}

fn processor() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match std::env::consts::ARCH {
        "x86_64" => Finding::Ready(format!("x86_64, {count} of them")),
        other => Finding::Lacking(format!("{other}, but the x86-64 guest is built here; use an x86-64 machine")),
    }
}

fn kvm() -> Finding {
    let opens = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match (Accel::choose(), config::processor_can_virtualize(), opens) {
        (Accel::Kvm, ..) => Finding::Ready("used".into()),
        (Accel::Tcg, false, _) => Finding::Later("the processor has neither vmx nor svm: guests run under TCG".into()),
        (Accel::Tcg, true, Err(error)) => Finding::Later(format!(
            "cannot open /dev/kvm ({error}): guests run under TCG; for speed, load kvm and join its group"
        )),
        (Accel::Tcg, true, Ok(_)) => Finding::Later("guests run under TCG".into()),
    }
}

fn memory() -> Finding {
    let (needed, free) = usual_memory();
    let text = format!("{} free; a default guest with its device takes {}", format_bytes(free), format_bytes(needed));
    if free >= needed { Finding::Ready(text) } else { Finding::Lacking(format!("{text}; close some programs")) }
}

fn mounting() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::Ready("root".into());
    }
    match on_path("fusermount3") {
        // Measured on a host of 24 GiB: 1 GiB stored twice in 3.6 s as a user and in 3.5 s as root.
        Some(program) => {
            Finding::Ready(format!("{}; as fast as mounting as root, where it was measured", program.display()))
        }
        None => Finding::Lacking("no fusermount3 to mount the device's window; install fuse3, or run as root".into()),
    }
}

fn terminal() -> Finding {
    match (std::io::stdin().is_terminal(), std::io::stderr().is_terminal()) {
        (true, true) => Finding::Ready("yes".into()),
        _ => Finding::Later("none: progress is printed in lines, and `boot` needs -c or --script".into()),
    }
}
