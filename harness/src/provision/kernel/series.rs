//! A series of patches on a kernel source: what its files say is part of the key, and every hunk must fit.
//!
//! A series is a folder of `*.patch` files, applied in the order of their names as `patch -p1` does, without fuzz. The
//! patched tree is a product of its own. It shares its unpatched files with the tree it was made from by hard links.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::cache::{Key, list};
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::progress::Step;
use crate::provision::run::{Limits, new_log, run};
use crate::provision::workspace;

const COPY_LIMITS: Limits = Limits::minutes(30, 30);
const PATCH_LIMITS: Limits = Limits::minutes(5, 5);

/// The folders of `guest-tests/kernel/series`, each made on top of those before it.
const OWN: [&str; 2] = ["private-nodes", "cram"];

/// This project's own series, for [`super::KernelPackage::default`], in the order to apply them.
pub(in crate::provision) fn own() -> Vec<PathBuf> {
    let folder = workspace().join("guest-tests/kernel/series");
    OWN.iter().map(|name| folder.join(name)).collect()
}

/// The patches of one or more folders, read.
#[derive(Debug, Default)]
pub(in crate::provision) struct Series {
    patches: Vec<(PathBuf, Vec<u8>)>,
}

impl Series {
    /// Reads the patches of the folders, in the order of the folders and within each of the names.
    pub(in crate::provision) fn read(folders: &[PathBuf]) -> Result<Series, ProvisionError> {
        let mut patches = Vec::new();
        for folder in folders {
            let before = patches.len();
            for path in list(folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "patch")) {
                let path = std::path::absolute(&path).context("find", &path)?;
                patches.push((path.clone(), fs::read(&path).context("read", path)?));
            }
            if patches.len() == before {
                let hint = "a series is a folder with at least one patch (git format-patch makes them)";
                return Err(ProvisionError::Missing { path: folder.join("*.patch"), hint: hint.into() });
            }
        }
        Ok(Series { patches })
    }

    /// Whether there is nothing to apply.
    pub(in crate::provision) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// The key of the tree with this key after these patches. Contents count, names do not.
    pub(in crate::provision) fn key(&self, base: &Key) -> Key {
        let base = base.to_string();
        let mut inputs = vec![("base", base.as_bytes())];
        inputs.extend(self.patches.iter().map(|(_, content)| ("patch", content.as_slice())));
        Key::of(&inputs)
    }

    /// Makes `tree`, which must not exist, from the tree `base`, which stays as it is.
    pub(in crate::provision) fn apply(
        &self,
        base: &Path,
        tree: &Path,
        log: &Path,
        step: &mut Step,
    ) -> Result<(), ProvisionError> {
        new_log(log)?;
        step.phase("copying the source", 0);
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link", "--"]).args([base, tree]);
        run("copying the kernel source", &mut copy, log, COPY_LIMITS, |_| {})?;
        step.phase("patching", self.patches.len() as u64);
        for (path, _) in &self.patches {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // `patch` writes a new file and renames it: the tree that shares the old one does not see it.
            let mut patch = Command::new("patch");
            patch.args(["--strip=1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-"]);
            patch.arg("--directory").arg(tree).arg("--input").arg(path);
            let mut refused = Refused::default();
            match run(&format!("applying {name}"), &mut patch, log, PATCH_LIMITS, |line| refused.hear(line)) {
                Err(ProvisionError::Failed { log, .. }) => {
                    return Err(ProvisionError::PatchRefused { patch: path.clone(), why: refused.why(), log });
                }
                result => result?,
            }
            step.advance(1, &name);
        }
        Ok(())
    }
}

/// What `patch` could not do.
#[derive(Debug, Default)]
struct Refused {
    file: String,
    hunks: Vec<String>,
    last: String,
}

impl Refused {
    fn hear(&mut self, line: &str) {
        if let Some(file) = line.strip_prefix("patching file ") {
            self.file = file.to_owned();
        } else if let Some(hunk) = line.strip_prefix("Hunk ").filter(|hunk| hunk.contains(" FAILED at ")) {
            self.hunks.push(format!("{}: hunk {}", self.file, hunk.trim_end_matches('.')));
        } else if line.starts_with("Reversed (or previously applied) patch detected") {
            self.hunks.push(format!("{}: it is there already", self.file));
        }
        self.last = line.to_owned();
    }

    fn why(self) -> String {
        if self.hunks.is_empty() { self.last } else { self.hunks.join("; ") }
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
