//! The record as one self-contained HTML page.
use std::path::Path;

use crate::scenario::report::Record;

/// The page.
pub(super) fn page(_record: &Record, _folder: &Path) -> String {
    String::new()
}
