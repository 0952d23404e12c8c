//! What came of the scenarios.
//!
//! A [`Record`] holds all that is known of a run. Every report is made from it and from nothing else, so that records of
//! partitioned runs can be kept, merged and shown later. One file a format.

mod html;
mod json;
mod junit;
mod ktap;
mod merge;
mod outcome;
mod terminal;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use json::read;
pub use merge::merge;
pub use outcome::{Outcome, Verdict};
pub use terminal::summary;

/// The form of records that this program writes and reads.
const FORMAT: u32 = 1;

/// All that is known of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The form of this record: 1.
    pub format: u32,
    /// When it began: seconds since 1970, UTC.
    pub begun: u64,
    /// How long it took, seconds. Of merged runs, the longest.
    pub seconds: f64,
    /// What it ran on, a line each: kernel, QEMU, machine.
    pub about: Vec<String>,
    /// What the reader should know about the record itself.
    pub notes: Vec<String>,
    /// The scenarios, in the order they ended.
    pub scenarios: Vec<Outcome>,
}

impl Record {
    /// The record of a run that has ended just now.
    pub fn new(scenarios: Vec<Outcome>, elapsed: Duration, about: Vec<String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            format: FORMAT,
            begun: now.saturating_sub(elapsed).as_secs(),
            seconds: elapsed.as_secs_f64(),
            about,
            notes: Vec::new(),
            scenarios,
        }
    }

    /// How long it took; zero where the record says what no run can take.
    pub fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }

    /// Whether a scenario failed.
    pub fn failed(&self) -> bool {
        self.scenarios.iter().any(Outcome::failed)
    }

    /// How many passed, failed, were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Verdict) -> bool| self.scenarios.iter().filter(|one| wanted(&one.verdict)).count();
        (
            count(|verdict| *verdict == Verdict::Passed),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        )
    }

    /// The kernels it ran on, each once.
    fn kernels(&self) -> Vec<&str> {
        let mut kernels: Vec<_> = self.scenarios.iter().map(|one| one.kernel.as_str()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        kernels
    }
}

/// The reports that are wanted, and where. `-` is standard output.
#[derive(Clone, Debug, Default)]
pub struct Formats {
    /// The record itself.
    pub json: Option<PathBuf>,
    /// JUnit XML.
    pub junit: Option<PathBuf>,
    /// KTAP.
    pub ktap: Option<PathBuf>,
    /// One page.
    pub html: Option<PathBuf>,
}

/// Writes the reports that are wanted. A file is there whole or not at all; a pipe or a device is written to.
///
/// # Errors
/// One cannot be written.
pub fn write(record: &Record, formats: &Formats) -> Result<()> {
    type Make = fn(&Record, &Path) -> Result<String>;
    let all: [(&Option<PathBuf>, Make); 4] = [
        (&formats.json, json::text),
        (&formats.junit, |record, _| junit::text(record)),
        (&formats.ktap, |record, _| Ok(ktap::text(record))),
        (&formats.html, |record, folder| Ok(html::page(record, folder))),
    ];
    for (path, make) in all {
        let Some(path) = path else { continue };
        let failed = || format!("cannot write the report {}", path.display());
        let path = if path.as_os_str() == "-" { None } else { Some(std::path::absolute(path).with_context(failed)?) };
        let folder = path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let text = make(record, folder).with_context(failed)?;
        match &path {
            None => io::stdout().write_all(text.as_bytes()).with_context(failed)?,
            Some(path) => replace(path, folder, &text).with_context(failed)?,
        }
    }
    Ok(())
}

fn replace(path: &Path, folder: &Path, text: &str) -> Result<()> {
    // A new file in the place of /dev/null or of a pipe would harm others.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Ok(fs::write(path, text)?);
    }
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Charts of a record as one SVG: `SCENARIO`, or `SCENARIO/N` for its Nth act; two of them stand side by side.
///
/// # Errors
/// There is no such chart, or the file cannot be written.
pub fn chart(record: &Record, names: &[String], path: &Path) -> Result<()> {
    let failed = || format!("cannot write the chart {}", path.display());
    let text = html::picture::svg(record, names)?;
    if path.as_os_str() == "-" {
        return io::stdout().write_all(text.as_bytes()).with_context(failed);
    }
    let path = std::path::absolute(path).with_context(failed)?;
    replace(&path, path.parent().unwrap_or(Path::new("")), &text).with_context(failed)
}

/// The outcomes as a record in JSON, in one line.
pub fn json(outcomes: &[Outcome]) -> Result<String> {
    let record = Record::new(outcomes.to_vec(), Duration::ZERO, Vec::new());
    Ok(json::text(&record, Path::new(""))?.trim_end().to_owned())
}
