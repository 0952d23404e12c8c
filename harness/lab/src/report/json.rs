//! The record itself as JSON.
//!
//! A file names artifact folders relative to itself, so that a record that is moved together with its artifacts, as a CI
//! job's upload is, still finds them.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use pathdiff::diff_paths;

use super::{FORMAT, Record};

/// The largest record to read, in bytes.
const MOST: u64 = 1 << 30;

/// The record's text for a file in `folder`. If `folder` is empty, paths stay as they are.
pub(super) fn text(record: &Record, folder: &Path) -> Result<String> {
    let mut record = record.clone();
    if folder != Path::new("") {
        for scenario in &mut record.scenarios {
            if let Some(relative) = diff_paths(&scenario.artifacts, folder) {
                scenario.artifacts = relative;
            }
        }
    }
    Ok(serde_json::to_string(&record)? + "\n")
}

/// Reads a record that [`super::write`] wrote.
///
/// # Errors
/// The file cannot be read, or is not a record in this format.
pub fn read(path: &Path) -> Result<Record> {
    let failed = || format!("cannot read the record {}", path.display());
    let length = fs::metadata(path).with_context(failed)?.len();
    ensure!(length <= MOST, "the record {} is larger than 1 GiB", path.display());
    let text = fs::read_to_string(path).with_context(failed)?;
    let mut record: Record = serde_json::from_str(&text).with_context(failed)?;
    ensure!(record.format == FORMAT, "the record {} has format {}, not {FORMAT}", path.display(), record.format);
    let path = std::path::absolute(path).with_context(failed)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    for scenario in &mut record.scenarios {
        scenario.artifacts = folder.join(&scenario.artifacts);
    }
    Ok(record)
}
