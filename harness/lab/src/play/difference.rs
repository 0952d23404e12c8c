//! The difference between a snapshot and the facts of this run, as a unified diff for the report.

use std::sync::{Arc, Mutex, PoisonError};

use insta::{Comparator, DefaultComparator, Snapshot, internals::SnapshotContents};
use similar::TextDiff;

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// There was no snapshot.
    #[default]
    NoSnapshot,
    Same,
    /// As `diff -u`.
    Different(String),
}

/// Compares as insta does, and records the result.
#[derive(Clone, Default)]
pub(crate) struct RecordingComparator(Arc<Mutex<Comparison>>);

impl RecordingComparator {
    /// The result of the last comparison.
    pub(crate) fn take(&self) -> Comparison {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Comparator for RecordingComparator {
    fn matches(&self, reference: &Snapshot, test: &Snapshot) -> bool {
        let matches = DefaultComparator.matches(reference, test);
        let comparison = match (matches, reference.contents(), test.contents()) {
            (true, ..) => Comparison::Same,
            (false, SnapshotContents::Text(old), SnapshotContents::Text(new)) => {
                Comparison::Different(unified(&old.to_string(), &new.to_string()))
            }
            (false, ..) => Comparison::Different("the snapshot is not text".to_owned()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = comparison;
        matches
    }

    fn dyn_clone(&self) -> Box<dyn Comparator> {
        Box::new(self.clone())
    }
}

/// `diff -u` of two texts.
fn unified(old: &str, new: &str) -> String {
    // insta strips the last newline; add it back, or the diff would report it missing.
    let (old, new) = (format!("{old}\n"), format!("{new}\n"));
    TextDiff::from_lines(&old, &new).unified_diff().header("snapshot", "this run").to_string()
}

/// `diff -u` of nothing and a text.
pub(crate) fn all_new(new: &str) -> String {
    TextDiff::from_lines("", &format!("{new}\n")).unified_diff().header("no snapshot", "this run").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_the_lines_and_what_is_around_them() {
        let difference = unified("node: 1\nonline: true\nsize: 4", "node: 1\nonline: false\nsize: 4");
        let expected =
            "--- snapshot\n+++ this run\n@@ -1,3 +1,3 @@\n node: 1\n-online: true\n+online: false\n size: 4\n";
        assert_eq!(difference, expected);
    }
}
