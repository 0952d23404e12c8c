//! The scenarios of a program.

use std::path::{Path, PathBuf};

use super::scenario::Scenario;
use crate::workspace::in_workspace;

/// The scenarios of a program and the folder of their snapshots. A crate of scenarios passes it to
/// [`cli::main`](crate::cli::main).
#[derive(Clone, Copy, Debug)]
pub struct Catalog {
    /// The program's name, as its help shows it: `env!("CARGO_BIN_NAME")`.
    pub program: &'static str,
    /// Every scenario. Names are unique.
    pub scenarios: &'static [&'static Scenario],
    /// The folder of the snapshots: an absolute path, such as `concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots")`, or
    /// one relative to the checkout of cxl-cram.
    pub snapshots: &'static str,
}

impl Catalog {
    /// The folder of the snapshots, as an absolute path.
    pub fn snapshot_folder(&self) -> PathBuf {
        in_workspace(self.snapshots)
    }

    /// Where a run leaves consoles and logs unless the user names a folder: `target/cxl-cram` beside the snapshots of a
    /// separate crate, or in the checkout of cxl-cram.
    pub fn artifact_folder(&self) -> PathBuf {
        const FOLDER: &str = "target/cxl-cram";
        match Path::new(self.snapshots).parent() {
            Some(own) if own.is_absolute() => own.join(FOLDER),
            _ => in_workspace(FOLDER),
        }
    }

    /// The scenario with this name.
    pub fn find(&self, name: &str) -> Option<&'static Scenario> {
        self.scenarios.iter().copied().find(|scenario| scenario.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_in_the_checkout_unless_the_path_is_absolute() {
        let catalog = |snapshots| Catalog { program: "lab", scenarios: &[], snapshots };
        assert_eq!(catalog("/elsewhere/snapshots").snapshot_folder(), PathBuf::from("/elsewhere/snapshots"));
        assert!(catalog("guest-tests/snapshots").snapshot_folder().is_dir());
    }

    #[test]
    fn a_separate_crate_has_its_own_artifact_folder() {
        let catalog = |snapshots| Catalog { program: "lab", scenarios: &[], snapshots };
        assert_eq!(catalog("/own/snapshots").artifact_folder(), PathBuf::from("/own/target/cxl-cram"));
        let ours = in_workspace("target/cxl-cram");
        assert_eq!(catalog("guest-tests/snapshots").artifact_folder(), ours);
    }
}
