//! Facts against the accepted snapshot, the insta way: a difference leaves a `.snap.new` for `cargo insta review`.
//!
//! A scenario has one snapshot for all kernels, `NAME.snap`. Where a kernel really differs there is one for it beside
//! that, `NAME@linux-7.snap` or `NAME@linux-7.2.snap`: the most precise one that exists is the one that holds.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{difference::Keeping, facts::Facts};

/// Where snapshots are kept: beside the scenarios.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-tests/snapshots");

/// Which snapshot of a scenario holds for a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    scenario: String,
    /// The kernel, when it has a snapshot of its own.
    suffix: Option<String>,
}

impl Snapshot {
    /// The most precise one there is, or with `own` the one of this kernel's release, which may have to be made.
    pub fn of(scenario: &str, kernel: &str, own: bool) -> Self {
        Self::among(scenario, kernel, own, |name| Path::new(FOLDER).join(name).exists())
    }

    fn among(scenario: &str, kernel: &str, own: bool, exists: impl Fn(&str) -> bool) -> Self {
        let mut numbers = kernel.split(|c: char| !c.is_ascii_digit());
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let release = format!("linux-{major}.{minor}");
        let found = [release.clone(), format!("linux-{major}")]
            .into_iter()
            .find(|suffix| exists(&format!("{scenario}@{suffix}.snap")));
        Self { scenario: scenario.to_owned(), suffix: if own { Some(release) } else { found } }
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        let suffix = self.suffix.as_ref().map(|suffix| format!("@{suffix}")).unwrap_or_default();
        Path::new(FOLDER).join(format!("{}{suffix}.snap", self.scenario))
    }

    /// Compares facts with it. insta prints the difference; the error has it too.
    pub(super) fn check(&self, story: &str, facts: &Facts) -> Result<(), Differs> {
        // The panic hook below belongs to the whole program.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(Path::new(FOLDER));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_description(story);
        let keeping = Keeping::default();
        settings.set_comparator(Box::new(keeping.clone()));
        if let Some(suffix) = &self.suffix {
            settings.set_snapshot_suffix(suffix);
        }
        // insta's assertion panics on a difference; here that is a verdict, not a crash.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_yaml_snapshot!(self.scenario.as_str(), facts))
        }));
        panic::set_hook(hook);
        outcome.map_err(|_| Differs { difference: keeping.take() })
    }
}

/// Facts that are not those of the snapshot.
#[derive(Debug)]
pub(super) struct Differs {
    /// As `diff -u`; none where there is no snapshot yet.
    pub(super) difference: Option<String>,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what =
            if self.difference.is_some() { "the facts differ from the snapshot" } else { "there is no snapshot yet" };
        write!(f, "{what}: `cargo insta review` shows and accepts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(kernel: &str, own: bool, existing: &[&str]) -> Option<String> {
        Snapshot::among("online", kernel, own, |name| existing.contains(&name)).suffix
    }

    #[test]
    fn the_most_precise_snapshot_that_exists_holds() {
        let both = ["online@linux-7.snap", "online@linux-7.2.snap"];
        assert_eq!(suffix("7.2.12-1-amd64", false, &both).as_deref(), Some("linux-7.2"));
        assert_eq!(suffix("7.3.0-rc1", false, &both).as_deref(), Some("linux-7"));
        assert_eq!(suffix("6.12.117", false, &both), None);
    }

    #[test]
    fn a_kernel_can_be_given_one_of_its_own() {
        assert_eq!(suffix("7.3.0-rc1", true, &["online@linux-7.snap"]).as_deref(), Some("linux-7.3"));
    }
}
