//! `list`: the scenarios, and what each takes.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use console::style;
use serde_json::{Value, json};

use super::selection::Selection;
use crate::scenario::Scenario;

/// Show the scenarios: name, story, and what each needs.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness list
  cxl-cram-harness list region --json
  cxl-cram-harness list --partition 1/3       what the first of three machines would play")]
pub(super) struct ListArgs {
    #[command(flatten)]
    selection: Selection,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn list(args: &ListArgs) -> Result<ExitCode> {
    let mut scenarios = args.selection.shown()?;
    scenarios.sort_by_key(|scenario| scenario.name);
    if args.json {
        let scenarios: Vec<_> = scenarios.iter().map(|scenario| described(scenario)).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "scenarios": scenarios }))?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for scenario in scenarios {
        println!("{:<width$}  {}", style(scenario.name).bold(), scenario.story);
        println!("{:<width$}  {}", "", style(needs(scenario).join(", ")).dim());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a scenario takes, in words.
fn needs(scenario: &Scenario) -> Vec<String> {
    let (machine, count) = (&scenario.machine, scenario.devices.len());
    let devices: Vec<_> = scenario
        .devices
        .iter()
        .map(|device| format!("{} in {} {}", device.capacity, device.physical, device.codec))
        .collect();
    let same = devices.iter().all(|device| *device == devices[0]);
    let mut words = vec![match count {
        1 => devices.join(""),
        _ if same => format!("{count} devices of {}", devices[0]),
        _ => devices.join(" and "),
    }];
    words.push(format!("{} MiB", machine.memory_mib));
    words.push(format!("{} processors", machine.processors));
    words.extend(machine.corpus.then(|| "corpus".to_owned()));
    words.extend(machine.scratch_mib.map(|mib| format!("a disk of {mib} MiB")));
    words.extend(scenario.needs.iter().map(ToString::to_string));
    words.extend(scenario.by_name.then(|| "only by its whole name".to_owned()));
    words
}

/// The same for machines.
fn described(scenario: &Scenario) -> Value {
    let devices: Vec<_> = scenario
        .devices
        .iter()
        .map(|device| {
            json!({
                "capacity": device.capacity, "physical": device.physical, "cache": device.cache,
                "codec": device.codec, "arguments": device.more,
            })
        })
        .collect();
    let needs: Vec<_> = scenario.needs.iter().map(ToString::to_string).collect();
    json!({
        "name": scenario.name,
        "story": scenario.story,
        "needs": needs,
        "devices": devices,
        "memory-mib": scenario.machine.memory_mib,
        "processors": scenario.machine.processors,
        "corpus": scenario.machine.corpus,
        "disk-mib": scenario.machine.scratch_mib,
        "limit-seconds": scenario.limit.as_secs(),
        "only-by-name": scenario.by_name,
    })
}
