//! `list`: the scenarios, and what each needs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use console::style;
use cxl_cram_kit::size::exact_bytes;
use serde_json::{Value, json};

use super::exit::Ended;
use super::out::outln;
use super::selection::Selection;
use crate::lab::catalog::Catalog;
use crate::lab::scenario::Scenario;

/// Show the scenarios: name, description, and what each needs.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness list
  cxl-cram-harness list region --json
  cxl-cram-harness list --partition 1/3       what the first of three machines would run")]
pub(super) struct ListArgs {
    #[command(flatten)]
    selection: Selection,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the scenarios.
pub(super) fn list(args: &ListArgs, catalog: &Catalog) -> Result<ExitCode> {
    let mut scenarios = args.selection.shown(catalog).map_err(Ended::refused)?;
    scenarios.sort_by_key(|scenario| scenario.name);
    if args.json {
        let scenarios: Vec<_> = scenarios.iter().map(|scenario| described(scenario)).collect();
        outln!("{}", serde_json::to_string_pretty(&json!({ "scenarios": scenarios }))?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for scenario in scenarios {
        outln!("{:<width$}  {}", style(scenario.name).bold(), scenario.story);
        outln!("{:<width$}  {}", "", style(needs(scenario).join(", ")).dim());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a scenario needs, as text.
fn needs(scenario: &Scenario) -> Vec<String> {
    let (machine, count) = (&scenario.machine, scenario.devices.len());
    let devices: Vec<_> = scenario
        .devices
        .iter()
        .map(|device| format!("{} in {} {}", exact_bytes(device.capacity), exact_bytes(device.physical), device.codec))
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
    words.extend(scenario.by_name.then(|| "only by exact name".to_owned()));
    words
}

/// The same as JSON.
fn described(scenario: &Scenario) -> Value {
    let devices: Vec<_> = scenario
        .devices
        .iter()
        .map(|device| {
            json!({
                "capacity": exact_bytes(device.capacity), "physical": exact_bytes(device.physical),
                "cache": exact_bytes(device.cache), "codec": device.codec.to_string(), "arguments": device.more,
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
