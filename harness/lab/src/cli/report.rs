//! `report`: merges and charts the records of finished runs. Also the report options of `run`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::report;
use crate::report::{Formats, Record};

/// The reports that a run writes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reports (FILE - is standard output)")]
pub(super) struct ReportArgs {
    /// Write one self-contained page: descriptions, verdicts, differences, consoles, charts over time
    #[arg(long, value_name = "FILE")]
    report_html: Option<PathBuf>,

    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    report_junit: Option<PathBuf>,

    /// Write KTAP, as kselftest prints it
    #[arg(long, value_name = "FILE")]
    report_ktap: Option<PathBuf>,

    /// Write the whole record, from which `report merge` makes the other reports
    #[arg(long, value_name = "FILE")]
    report_json: Option<PathBuf>,
}

impl ReportArgs {
    /// The options in the form that [`report::write`] takes.
    pub(super) fn formats(&self) -> Formats {
        let own = self.clone();
        Formats { html: own.report_html, junit: own.report_junit, ktap: own.report_ktap, json: own.report_json }
    }
}

/// Merge and chart the records of finished runs.
#[derive(Args, Clone, Debug)]
pub(super) struct ReportCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    Merge(MergeArgs),
    Compare(CompareArgs),
    Chart(ChartArgs),
}

/// Draw charts of a record as one SVG.
///
/// Two scenarios, or the two acts of one, are drawn side by side.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run =cram_bear --report-json record.json
  Its two acts, side by side:
    cxl-cram-harness report chart record.json cram_bear --svg bear.svg
  Its second act:
    cxl-cram-harness report chart record.json cram_bear/2 --svg cram.svg
  Two scenarios, side by side:
    cxl-cram-harness report chart record.json bear cram_demote --svg both.svg")]
struct ChartArgs {
    /// Record written by --report-json
    #[arg(value_name = "RECORD")]
    record: PathBuf,

    /// One or two scenarios of the record; SCENARIO/N is the Nth act
    #[arg(required = true, num_args = 1..=2, value_name = "SCENARIO")]
    scenarios: Vec<String>,

    /// Write the drawing here; - is standard output
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
}

/// Make one report from several runs, such as the parts of a partitioned run.
///
/// If several records have the same scenario on the same kernel, the worst outcome is kept.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run --partition 1/2 --report-json part1.json        on one machine
  cxl-cram-harness run --partition 2/2 --report-json part2.json        on another
  cxl-cram-harness report merge part1.json part2.json --html report.html --junit junit.xml

Exit code: 1 when a scenario failed.")]
struct MergeArgs {
    /// Records written by --report-json
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,

    /// Write one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write KTAP
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,

    /// Write the merged record
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Make a table of several runs, with a column for each kernel and a row for each scenario.
///
/// The table is Markdown. Reasons for which a scenario was skipped or failed are numbered below it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  cxl-cram-harness run --report-json patched.json
  cxl-cram-harness run --plain --report-json plain.json
  cxl-cram-harness report compare 'with the series=patched.json' plain=plain.json
  cxl-cram-harness report compare plain=part1.json plain=part2.json --markdown docs/kernels.md

Exit code: 1 when a scenario failed.")]
struct CompareArgs {
    /// The head of a column and a record written by --report-json; records with the same head are merged
    #[arg(required = true, value_name = "HEAD=RECORD", value_parser = parse_column)]
    columns: Vec<(String, PathBuf)>,

    /// Write the table here; in a page with the marks `<!-- report compare: begin -->` and `end`, between them
    #[arg(long, value_name = "FILE", default_value = "-")]
    markdown: PathBuf,
}

fn parse_column(text: &str) -> Result<(String, PathBuf), String> {
    let (head, record) = text.split_once('=').ok_or("give the head of its column first: HEAD=RECORD")?;
    if head.trim().is_empty() || record.is_empty() {
        Err("HEAD=RECORD with one of them empty".into())
    } else {
        Ok((head.trim().into(), record.into()))
    }
}

/// Makes the table of several runs.
fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let mut columns: Vec<(String, Vec<Record>)> = Vec::new();
    for (head, path) in &args.columns {
        let record = report::read(path)?;
        match columns.iter_mut().find(|(known, _)| known == head) {
            Some((_, records)) => records.push(record),
            None => columns.push((head.clone(), vec![record])),
        }
    }
    let columns: Vec<_> = columns.into_iter().map(|(head, records)| (head, report::merge(records))).collect();
    report::write_table(&columns, &args.markdown)?;
    Ok(if columns.iter().any(|(_, record)| record.failed()) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Merges records, compares them, or draws charts of one.
pub(super) fn report(command: &ReportCommand) -> Result<ExitCode> {
    let args = match &command.action {
        Action::Merge(args) => args,
        Action::Compare(args) => return compare(args),
        Action::Chart(args) => {
            report::chart(&report::read(&args.record)?, &args.scenarios, &args.svg)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let records = args.parts.iter().map(|part| report::read(part)).collect::<Result<Vec<_>>>()?;
    let record = report::merge(records);
    let own = args.clone();
    report::write(&record, &Formats { html: own.html, junit: own.junit, ktap: own.ktap, json: own.json })?;
    let width = report::width(&console::Term::stderr());
    for outcome in record.scenarios.iter().filter(|outcome| outcome.failed()) {
        eprintln!("{}", outcome.line(width));
    }
    eprintln!("{}", report::summary(&record.scenarios, Duration::from_secs_f64(record.seconds.max(0.0))));
    Ok(if record.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
