//! `report`: reports of runs that are over, and the options by which a run writes its own.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::scenario::report::{self, Formats};

/// What reports a run writes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reports (FILE - is standard output)")]
pub(super) struct ReportArgs {
    /// One self-contained page: stories, verdicts, differences, consoles, charts over time
    #[arg(long, value_name = "FILE")]
    report_html: Option<PathBuf>,

    /// JUnit XML
    #[arg(long, value_name = "FILE")]
    report_junit: Option<PathBuf>,

    /// KTAP, as kselftest prints it
    #[arg(long, value_name = "FILE")]
    report_ktap: Option<PathBuf>,

    /// The whole record, of which `report merge` makes the other reports
    #[arg(long, value_name = "FILE")]
    report_json: Option<PathBuf>,
}

impl ReportArgs {
    /// As the reports' writer takes them.
    pub(super) fn formats(&self) -> Formats {
        let own = self.clone();
        Formats { html: own.report_html, junit: own.report_junit, ktap: own.report_ktap, json: own.report_json }
    }
}

/// Reports of runs that are over.
#[derive(Args, Clone, Debug)]
pub(super) struct ReportCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Merge(MergeArgs),
    Chart(ChartArgs),
}

/// Draw charts of a record as one SVG.
///
/// A scenario of two acts is drawn with both side by side, and so are two that are named.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run =cram_bear --report-json record.json
  cxl-cram-harness report chart record.json cram_bear --svg bear.svg            its two acts, side by side
  cxl-cram-harness report chart record.json cram_bear/2 --svg cram.svg          its second act
  cxl-cram-harness report chart record.json bear cram_demote --svg both.svg     two scenarios, side by side")]
struct ChartArgs {
    /// A record that --report-json wrote
    #[arg(value_name = "RECORD")]
    record: PathBuf,

    /// One or two scenarios of it; SCENARIO/N is the Nth act of one
    #[arg(required = true, num_args = 1..=2, value_name = "SCENARIO")]
    scenarios: Vec<String>,

    /// The drawing; - is standard output
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
}

/// Make one report of several runs, of the parts of a run for instance.
///
/// A scenario that is in several records on the same kernel is kept as it came out worst.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run --partition 1/2 --report-json part1.json        on one machine
  cxl-cram-harness run --partition 2/2 --report-json part2.json        on another
  cxl-cram-harness report merge part1.json part2.json --html report.html --junit junit.xml

Exit code: 1 when a scenario failed.")]
struct MergeArgs {
    /// Records that --report-json wrote
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,

    /// One self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// KTAP
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,

    /// The merged record
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does it.
pub(super) fn report(command: &ReportCommand) -> Result<ExitCode> {
    let args = match &command.what {
        What::Merge(args) => args,
        What::Chart(args) => {
            report::chart(&report::read(&args.record)?, &args.scenarios, &args.svg)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let records = args.parts.iter().map(|part| report::read(part)).collect::<Result<Vec<_>>>()?;
    let record = report::merge(records);
    let own = args.clone();
    report::write(&record, &Formats { html: own.html, junit: own.junit, ktap: own.ktap, json: own.json })?;
    for outcome in record.scenarios.iter().filter(|outcome| outcome.failed()) {
        eprintln!("{}", outcome.line());
    }
    eprintln!("{}", report::summary(&record.scenarios, Duration::from_secs_f64(record.seconds.max(0.0))));
    Ok(if record.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
