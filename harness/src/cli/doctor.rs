//! `doctor`: what this machine has and lacks for a run, each with its remedy.

use std::{fs::OpenOptions, io::IsTerminal, process::ExitCode};

use anyhow::Result;
use clap::Args;
use console::style;
use cxl_cram_device::size::format_bytes;
use serde_json::json;

use crate::{
    machine::config::{self, Accel},
    provision::{Finding, ProvisionArgs, on_path, survey},
    scenario::{obstacle, usual_memory},
};

/// Say what this machine has and lacks, and what to do about it.
///
/// Nothing is fetched, built or changed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness doctor
  cxl-cram-harness doctor --offline --json     is everything there to play without a network?

Exit code: 0 when `run` with the same options can work, else 1.")]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    provision: ProvisionArgs,
}

/// Does it.
pub(super) fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let mut findings = vec![
        ("processor", processor()),
        ("KVM", kvm()),
        ("memory", memory()),
        ("/dev/fuse", obstacle().map_or_else(|| Finding::Ready("opens".into()), Finding::Lacking)),
        ("mounting", mounting()),
    ];
    findings.extend(survey(&args.provision.options())?);
    findings.push(("terminal", terminal()));
    let fit = !findings.iter().any(|(_, finding)| matches!(finding, Finding::Lacking(_)));
    if args.json {
        let all: Vec<_> = findings.iter().map(|(what, finding)| described(what, finding)).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "fit": fit, "findings": all }))?);
    } else {
        for (what, finding) in &findings {
            let (mark, text) = match finding {
                Finding::Ready(text) => (style("ok     ").green(), text),
                Finding::Later(text) => (style("note   ").yellow(), text),
                Finding::Lacking(text) => (style("lacking").red().bold(), text),
            };
            println!("{mark}  {what:<15}  {text}");
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
        other => Finding::Lacking(format!("{other}: the guest is x86-64 and is built here; use an x86-64 machine")),
    }
}

fn kvm() -> Finding {
    let opens = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match (Accel::choose(), config::processor_can_virtualize(), opens) {
        (Accel::Kvm, ..) => Finding::Ready("used".into()),
        (Accel::Tcg, false, _) => Finding::Later("the processor says neither vmx nor svm: guests run under TCG".into()),
        (Accel::Tcg, true, Err(error)) => Finding::Later(format!(
            "/dev/kvm cannot be opened ({error}): guests run under TCG; load kvm and join its group to be quicker"
        )),
        (Accel::Tcg, true, Ok(_)) => Finding::Later("guests run under TCG".into()),
    }
}

fn memory() -> Finding {
    let (needed, free) = usual_memory();
    let text = format!("{} free, a usual guest with its device takes {}", format_bytes(free), format_bytes(needed));
    if free >= needed { Finding::Ready(text) } else { Finding::Lacking(format!("{text}: end something")) }
}

fn mounting() -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::Ready("root".into());
    }
    match on_path("fusermount3") {
        Some(program) => Finding::Ready(program.display().to_string()),
        None => Finding::Lacking("the device mounts its window: install fuse3 (fusermount3), or be root".into()),
    }
}

fn terminal() -> Finding {
    match (std::io::stdin().is_terminal(), std::io::stderr().is_terminal()) {
        (true, true) => Finding::Ready("yes".into()),
        _ => Finding::Later("none: progress comes in lines, and `boot` is for -c and --script".into()),
    }
}
