//! The last outcome of each scenario, for `run --failed`: a file beside the artifacts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::report::{Outcome, Verdict, replace};

/// The file's name.
const FILE: &str = "cxl-cram-outcomes.json";

/// The outcome of each scenario's last complete run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastOutcomes {
    scenarios: BTreeMap<String, Last>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Last {
    Passed,
    Failed,
    Skipped,
}

impl LastOutcomes {
    /// Reads the outcomes of the runs that left their artifacts in `top`; none before the first run.
    ///
    /// # Errors
    /// The file cannot be read, or the harness did not write it.
    pub fn read(top: &Path) -> Result<Option<Self>> {
        let path = path(top);
        // Reading a pipe could block, and a device may have no end.
        if fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
            bail!("{} is not a file; move it away or give another --artifacts folder", path.display());
        }
        match fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(last) => Ok(Some(last)),
                Err(error) => bail!(
                    "{} was not written by cxl-cram-harness ({error}); move it away or give another --artifacts folder",
                    path.display()
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Records these outcomes, and writes the file. An interrupted scenario keeps its earlier outcome.
    ///
    /// # Errors
    /// `top` is not writable.
    pub fn update(mut self, outcomes: &[Outcome], top: &Path) -> Result<()> {
        for outcome in outcomes {
            let last = match outcome.verdict {
                Verdict::Passed => Last::Passed,
                Verdict::Failed(_) => Last::Failed,
                Verdict::Skipped(_) => Last::Skipped,
                Verdict::Interrupted => continue,
            };
            self.scenarios.insert(outcome.name.clone(), last);
        }
        let path = path(top);
        let text = serde_json::to_string_pretty(&self)? + "\n";
        replace(&path, top, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The scenarios that failed.
    pub fn failed(&self) -> BTreeSet<&str> {
        let failed = self.scenarios.iter().filter(|(_, last)| **last == Last::Failed);
        failed.map(|(name, _)| name.as_str()).collect()
    }
}

fn path(top: &Path) -> PathBuf {
    top.join(FILE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn outcome(name: &str, verdict: Verdict) -> Outcome {
        Outcome { name: name.to_owned(), verdict, ..Outcome::of(&crate::lab::scenario::Scenario::USUAL) }
    }

    fn failed(name: &str) -> Outcome {
        outcome(name, Verdict::Failed("it did".to_owned()))
    }

    #[test]
    fn a_scenario_stays_failed_until_a_complete_run_passes() {
        let top = tempfile::tempdir().unwrap();
        let read = || LastOutcomes::read(top.path()).unwrap();
        assert_eq!(read(), None);
        let first = [failed("bear"), failed("zeros"), outcome("online", Verdict::Passed)];
        LastOutcomes::default().update(&first, top.path()).unwrap();
        assert_eq!(read().unwrap().failed(), BTreeSet::from(["bear", "zeros"]));
        let second = [outcome("bear", Verdict::Interrupted), outcome("zeros", Verdict::Passed), failed("online")];
        read().unwrap().update(&second, top.path()).unwrap();
        assert_eq!(read().unwrap().failed(), BTreeSet::from(["bear", "online"]));
    }

    #[test]
    fn a_foreign_file_of_that_name_is_left_alone() {
        for text in ["", "{}", "mine", r#"{"scenarios": {}, "mine": 1}"#] {
            let top = tempfile::tempdir().unwrap();
            fs::write(path(top.path()), text).unwrap();
            let error = LastOutcomes::read(top.path()).unwrap_err().to_string();
            assert!(error.contains("move it away"), "{error}");
            assert_eq!(fs::read_to_string(path(top.path())).unwrap(), text);
        }
    }
}
