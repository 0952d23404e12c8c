//! Reports on a run.
//!
//! A [`Record`] holds everything about a run. Every report is made from a record alone, so that the records of partitioned
//! runs can be kept, merged and shown later. One file for each format.

mod html;
mod json;
mod junit;
mod ktap;
mod merge;
mod outcome;
mod table;
mod terminal;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

pub use json::read;
pub use merge::merge;
pub use outcome::{Counts, Outcome, Verdict};
pub use table::{table, write_table};
pub use terminal::{summary, width};

/// The version of the record format.
const FORMAT: u32 = 1;

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the record format: 1.
    pub format: u32,
    /// When it began: seconds since 1970, UTC.
    pub begun: u64,
    /// How long it took, in seconds. For merged runs, the longest.
    pub seconds: f64,
    /// What it ran on, one line each: kernel, QEMU, machine.
    pub about: Vec<String>,
    /// Notes on the record itself.
    pub notes: Vec<String>,
    /// The outcomes, in the order in which the scenarios ended.
    pub scenarios: Vec<Outcome>,
}

impl Record {
    /// The record of a run that has just ended.
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

    /// How long it took; zero if the record has an invalid time.
    pub fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }

    /// Whether a scenario failed, or was interrupted and could have.
    pub fn failed(&self) -> bool {
        let counts = self.counts();
        counts.failed + counts.interrupted > 0
    }

    /// Whether scenarios failed, and each of them only because this machine could not run it.
    pub fn host_at_fault(&self) -> bool {
        let mut failed = self.scenarios.iter().filter(|outcome| outcome.failed()).peekable();
        failed.peek().is_some() && failed.all(|outcome| outcome.host_at_fault)
    }

    /// How many scenarios ended with each verdict.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.scenarios)
    }

    /// The kernels it ran on, without duplicates.
    fn kernels(&self) -> Vec<&str> {
        let mut kernels: Vec<_> = self.scenarios.iter().map(|one| one.kernel.as_str()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        kernels
    }
}

/// The reports to write, and where. `-` is standard output.
#[derive(Clone, Debug, Default)]
pub struct Formats {
    /// The record itself.
    pub json: Option<PathBuf>,
    /// JUnit XML.
    pub junit: Option<PathBuf>,
    /// KTAP.
    pub ktap: Option<PathBuf>,
    /// One HTML page.
    pub html: Option<PathBuf>,
}

impl Formats {
    /// Checks before a run that the reports can be written.
    ///
    /// # Errors
    /// A path names a folder, or a place where no file can be created.
    pub fn check(&self) -> Result<()> {
        for path in [&self.json, &self.junit, &self.ktap, &self.html].into_iter().flatten() {
            if path.as_os_str() == "-" {
                continue;
            }
            let path =
                std::path::absolute(path).with_context(|| format!("cannot resolve the report {}", path.display()))?;
            ensure!(!path.is_dir(), "the report {} is a folder; name a file", path.display());
            let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
            ensure!(
                folder.is_dir() && access(folder, Access::WRITE_OK).is_ok(),
                "the report {} cannot be written: {} is not a writable folder",
                path.display(),
                folder.display()
            );
        }
        Ok(())
    }
}

/// Writes the reports. Replaces a regular file atomically; writes into a pipe or a device.
///
/// # Errors
/// A report cannot be written.
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

/// Replaces a file in `folder` atomically.
pub(super) fn replace(path: &Path, folder: &Path, text: &str) -> Result<()> {
    // Replacing /dev/null or a pipe with a file would break other programs.
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

/// Draws charts of a record as one SVG: `SCENARIO`, or `SCENARIO/N` for its Nth act; two of them side by side.
///
/// # Errors
/// The record has no such scenario or act, or the file cannot be written.
pub fn chart(record: &Record, names: &[String], path: &Path) -> Result<()> {
    let failed = || format!("cannot write the chart {}", path.display());
    let text = html::picture::svg(record, names)?;
    if path.as_os_str() == "-" {
        return io::stdout().write_all(text.as_bytes()).with_context(failed);
    }
    let path = std::path::absolute(path).with_context(failed)?;
    replace(&path, path.parent().unwrap_or(Path::new("")), &text).with_context(failed)
}

/// The record as one line of JSON. Artifact paths stay as they are, because there is no file to be relative to.
///
/// # Errors
/// Serialization fails.
pub fn json(record: &Record) -> Result<String> {
    Ok(json::text(record, Path::new(""))?.trim_end().to_owned())
}
