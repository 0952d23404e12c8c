//! Compares facts with the accepted snapshot, through insta: a difference leaves a `.snap.new` for `cargo insta review`.
//!
//! A scenario has one snapshot for all kernels, `NAME.snap`. A kernel that really differs has its own beside it,
//! `NAME@linux-7.snap` or `NAME@linux-7.2.snap`, or for the older kernels of a long-term line
//! `NAME@linux-6.12-up-to-107.snap`. The most specific snapshot that exists wins.

use std::{
    env, fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use super::difference::{Comparison, RecordingComparator, all_new};
use crate::record::facts::Facts;

/// Sets insta's environment so that a difference does not panic: here it is a verdict, which the comparator records.
///
/// # Safety
/// No other thread may run yet.
pub(crate) unsafe fn keep_insta_from_panicking() {
    // SAFETY: the caller guarantees that no other thread runs.
    unsafe { env::set_var("INSTA_FORCE_PASS", "1") };
}

/// The snapshot of a scenario that applies to a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    folder: PathBuf,
    scenario: String,
    /// The kernel or kernel line, if it has its own snapshot.
    suffix: Option<String>,
}

impl Snapshot {
    /// The most specific snapshot that exists, or with `own` the one of this kernel's release, which may not exist yet.
    pub fn of(folder: &Path, scenario: &str, kernel: &str, own: bool) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Self::among(folder, scenario, kernel, own, &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn among(folder: &Path, scenario: &str, kernel: &str, own: bool, names: &[&str]) -> Self {
        let mut numbers = kernel.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next().unwrap_or_default();
        let (major, minor, patch) = (number(), number(), number());
        let release = format!("linux-{major}.{minor}");
        let suffixes: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix(scenario)?.strip_prefix('@')?.strip_suffix(".snap"))
            .collect();
        let up_to = patch.parse().ok().and_then(|patch: u32| {
            let limit = |suffix: &str| suffix.strip_prefix(&release)?.strip_prefix("-up-to-")?.parse().ok();
            let limits = suffixes.iter().filter_map(|suffix| limit(suffix)).filter(|&limit| patch <= limit);
            limits.min().map(|limit| format!("{release}-up-to-{limit}"))
        });
        let found = up_to.or_else(|| {
            [release.clone(), format!("linux-{major}")].into_iter().find(|suffix| suffixes.contains(&suffix.as_str()))
        });
        Self {
            folder: folder.to_owned(),
            scenario: scenario.to_owned(),
            suffix: if own { Some(release) } else { found },
        }
    }

    /// The snapshot's file.
    pub fn path(&self) -> PathBuf {
        let suffix = self.suffix.as_ref().map(|suffix| format!("@{suffix}")).unwrap_or_default();
        self.folder.join(format!("{}{suffix}.snap", self.scenario))
    }

    /// Compares facts with it.
    pub(crate) fn check(&self, story: &str, facts: &Facts) -> Result<(), SnapshotError> {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&self.folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_description(story);
        let comparator = RecordingComparator::default();
        settings.set_comparator(Box::new(comparator.clone()));
        if let Some(suffix) = &self.suffix {
            settings.set_snapshot_suffix(suffix);
        }
        let before = fs::read(self.path()).ok();
        // With `keep_insta_from_panicking`, insta panics only if it cannot read or write a snapshot.
        let asserted = catch_unwind(AssertUnwindSafe(|| {
            settings.bind(|| insta::assert_yaml_snapshot!(self.scenario.as_str(), facts))
        }));
        // With INSTA_UPDATE=always insta writes the snapshot itself, which accepts the facts.
        if asserted.is_ok() && fs::read(self.path()).ok() != before {
            return Ok(());
        }
        let problem = match comparator.take() {
            Comparison::Same if asserted.is_ok() => return Ok(()),
            Comparison::Different(difference) => {
                return Err(SnapshotError { problem: Problem::Different, difference });
            }
            _ if before.is_some() => Problem::Unusable(self.path()),
            _ => Problem::New,
        };
        Err(SnapshotError { problem, difference: all_new(&facts_as_text(facts)) })
    }
}

/// Facts that the snapshot does not confirm.
#[derive(Debug)]
pub(crate) struct SnapshotError {
    problem: Problem,
    /// As `diff -u`.
    pub(crate) difference: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    New,
    Different,
    /// insta cannot read or write the snapshot.
    Unusable(PathBuf),
}

/// The facts in readable form, for when there is no snapshot to compare them with.
fn facts_as_text(facts: &Facts) -> String {
    serde_json::to_string_pretty(facts).unwrap_or_default()
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.problem {
            Problem::New => "there is no snapshot yet",
            Problem::Different => "the facts differ from the snapshot",
            Problem::Unusable(path) => return write!(f, "cannot read or write the snapshot {}", path.display()),
        };
        write!(f, "{what}; review and accept with `cargo insta review`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(kernel: &str, own: bool, existing: &[&str]) -> Option<String> {
        Snapshot::among(Path::new("/snapshots"), "online", kernel, own, existing).suffix
    }

    #[test]
    fn the_most_specific_snapshot_wins() {
        let both = ["online@linux-7.snap", "online@linux-7.2.snap"];
        assert_eq!(suffix("7.2.12-1-amd64", false, &both).as_deref(), Some("linux-7.2"));
        assert_eq!(suffix("7.3.0-rc1", false, &both).as_deref(), Some("linux-7"));
        assert_eq!(suffix("6.12.117", false, &both), None);
    }

    #[test]
    fn an_older_kernel_of_a_line_uses_the_nearest_limit() {
        let names =
            ["online@linux-6.12-up-to-9.snap", "online@linux-6.12-up-to-107.snap", "other@linux-6.12-up-to-200.snap"];
        let of = |kernel: &str| suffix(kernel, false, &names);
        assert_eq!(of("6.12.9").as_deref(), Some("linux-6.12-up-to-9"));
        assert_eq!(of("6.12.10+deb13-amd64").as_deref(), Some("linux-6.12-up-to-107"));
        assert_eq!(of("6.12.107").as_deref(), Some("linux-6.12-up-to-107"));
        assert_eq!((of("6.12.108"), of("6.1.5"), of("6.13.0")), (None, None, None));
    }

    #[test]
    fn the_path_of_a_snapshot_has_no_parent_components() {
        let path = Snapshot::among(Path::new("/snapshots"), "online", "6.12.117", false, &[]).path();
        assert!(path.ends_with("snapshots/online.snap"), "{}", path.display());
        assert!(path.components().all(|part| part != std::path::Component::ParentDir), "{}", path.display());
    }

    #[test]
    fn without_a_snapshot_all_facts_are_new() {
        let mut facts = Facts::default();
        facts.push("node", serde_json::json!({"online": true}));
        let difference = all_new(&facts_as_text(&facts));
        assert!(difference.lines().skip(3).all(|line| line.starts_with('+')), "{difference}");
        assert!(difference.contains("\"online\": true"), "{difference}");
        let differs = SnapshotError { problem: Problem::New, difference };
        assert!(differs.to_string().starts_with("there is no snapshot yet"));
    }

    #[test]
    fn a_kernel_can_have_its_own_snapshot() {
        assert_eq!(suffix("7.3.0-rc1", true, &["online@linux-7.snap"]).as_deref(), Some("linux-7.3"));
    }

    #[test]
    fn facts_are_compared_with_the_snapshot_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Snapshot::of(folder.path(), "online", "6.12.117", false);
        let facts = |online: bool| {
            let mut facts = Facts::default();
            facts.push("online", serde_json::json!(online));
            facts
        };
        let check = |online: bool| snapshot.check("a test", &facts(online));
        assert_eq!(check(true).unwrap_err().problem, Problem::New);
        fs::write(snapshot.path(), "---\nsource: x\n---\nonline: true\n").unwrap();
        assert!(check(true).is_ok());
        let error = check(false).unwrap_err();
        assert_eq!(error.problem, Problem::Different);
        assert!(error.difference.contains("-online: true\n+online: false"), "{}", error.difference);
        fs::write(snapshot.path(), b"\xff").unwrap();
        assert_eq!(check(true).unwrap_err().problem, Problem::Unusable(snapshot.path()));
    }
}
