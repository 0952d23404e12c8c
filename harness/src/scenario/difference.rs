//! The difference between a snapshot and what came now, as unified text for the report.

use std::sync::{Arc, Mutex, PoisonError};

use insta::{Comparator, DefaultComparator, Snapshot, internals::SnapshotContents};
use similar::TextDiff;

/// Compares as insta does, and keeps what it saw of a difference.
#[derive(Clone, Default)]
pub(super) struct Keeping(Arc<Mutex<Option<String>>>);

impl Keeping {
    /// The difference that was seen. None when nothing differed, or when there was nothing to compare with.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Comparator for Keeping {
    fn matches(&self, reference: &Snapshot, test: &Snapshot) -> bool {
        let matches = DefaultComparator.matches(reference, test);
        if !matches
            && let (SnapshotContents::Text(old), SnapshotContents::Text(new)) = (reference.contents(), test.contents())
        {
            let difference = unified(&old.to_string(), &new.to_string());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(difference);
        }
        matches
    }

    fn dyn_clone(&self) -> Box<dyn Comparator> {
        Box::new(self.clone())
    }
}

/// `diff -u` of two texts.
fn unified(old: &str, new: &str) -> String {
    // insta keeps texts without their last newline; without it here each would be told to lack one.
    let (old, new) = (format!("{old}\n"), format!("{new}\n"));
    TextDiff::from_lines(&old, &new).unified_diff().header("snapshot", "this run").to_string()
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
