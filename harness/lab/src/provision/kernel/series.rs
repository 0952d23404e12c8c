//! Applies a series of patches to a kernel source. Their contents are part of the key, and every hunk must fit.
//!
//! A series is a folder of `*.patch` files, applied in the order of their names by `patch -p1` without fuzz, or one of this
//! project's own, which are [stored](stored) once for several kernels. The patched tree is a separate product, which shares
//! unpatched files with the original tree by hard links.

mod mail;
pub(crate) mod stored;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run::RunError;
use crate::process::run::{Limits, new_log, run};
use crate::provision::cache::{Key, list};
use crate::provision::error::{IoContext, ProvisionError};
use cxl_cram_kit::progress::Step;

const COPY_LIMITS: Limits = Limits::minutes(30, 30);
const PATCH_LIMITS: Limits = Limits::minutes(5, 5);

/// The text of a patch.
#[derive(Debug, Clone)]
struct Text {
    /// The file that it comes from.
    path: PathBuf,
    content: Vec<u8>,
}

impl Text {
    fn read(path: &Path) -> Result<Text, ProvisionError> {
        let path = std::path::absolute(path).context("find", path)?;
        Ok(Text { content: fs::read(&path).context("read", &path)?, path })
    }

    /// The files that the patch changes or creates, relative to the tree.
    fn touched(&self) -> impl Iterator<Item = PathBuf> {
        let text = String::from_utf8_lossy(&self.content).into_owned();
        let side = |line: &str, mark: &str, prefix: &str| {
            let name = line.strip_prefix(mark)?.split('\t').next()?;
            name.strip_prefix(prefix).map(PathBuf::from)
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.into_iter().filter_map(move |line| side(&line, "--- ", "a/").or_else(|| side(&line, "+++ ", "b/")))
    }
}

/// A patch.
#[derive(Debug)]
struct Patch {
    /// The patch, followed by its refreshes for older kernels, those for the newest first. The first that fits is applied.
    texts: Vec<Text>,
}

/// The patches of one or more folders.
#[derive(Debug, Default)]
pub(in crate::provision) struct Series {
    patches: Vec<Patch>,
}

impl Series {
    /// Reads the patches of the folders, in this order, and within each folder in the order of the names.
    pub(in crate::provision) fn read(folders: &[PathBuf]) -> Result<Series, ProvisionError> {
        let mut patches = Vec::new();
        for folder in folders {
            let before = patches.len();
            for path in list(folder)?.into_iter().filter(|path| is_patch(path)) {
                patches.push(Patch { texts: vec![Text::read(&path)?] });
            }
            if patches.len() == before {
                let hint = "a series needs at least one patch (made by git format-patch)";
                return Err(ProvisionError::Missing { path: folder.join("*.patch"), hint: hint.into() });
            }
        }
        Ok(Series { patches })
    }

    /// Puts another series on top of this one.
    pub(in crate::provision) fn then(mut self, other: Series) -> Series {
        self.patches.extend(other.patches);
        self
    }

    /// Whether there are no patches.
    pub(in crate::provision) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// The key of a tree with key `base` after these patches. Contents count, names do not.
    pub(in crate::provision) fn key(&self, base: &Key) -> Key {
        let base = base.to_string();
        let mut inputs = vec![("base", base.as_bytes())];
        for patch in &self.patches {
            let kinds = ["patch"].into_iter().chain(std::iter::repeat("refresh"));
            inputs.extend(kinds.zip(patch.texts.iter().map(|text| text.content.as_slice())));
        }
        Key::of(&inputs)
    }

    /// Creates the patched `tree`, which must not exist, from `base`, which is not modified.
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
        run("copying the kernel source", copy, log, COPY_LIMITS, |_| {})?;
        self.patch(tree, log, step)
    }

    /// The files that the patches touch, relative to the tree. Paths that lead out of it are omitted; `patch` refuses them.
    pub(in crate::provision) fn touched(&self) -> BTreeSet<PathBuf> {
        let inside = |file: &PathBuf| file.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let texts = self.patches.iter().flat_map(|patch| &patch.texts);
        texts.flat_map(Text::touched).filter(inside).collect()
    }

    /// Checks that every patch fits the tree `base`, on a copy of the files that they touch.
    pub(in crate::provision) fn fits(&self, base: &Path, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
        new_log(log)?;
        let copy = tempfile::tempdir().context("create a folder in", std::env::temp_dir())?;
        for file in self.touched() {
            if base.join(&file).is_file() {
                let to = copy.path().join(&file);
                let folder = to.parent().unwrap_or(copy.path());
                fs::create_dir_all(folder).context("create", folder)?;
                fs::copy(base.join(&file), &to).context("copy", &file)?;
            }
        }
        self.patch(copy.path(), log, step)
    }

    fn patch(&self, tree: &Path, log: &Path, step: &mut Step) -> Result<(), ProvisionError> {
        step.phase("patching", self.patches.len() as u64);
        for Patch { texts } in &self.patches {
            // If nothing fits, applying the patch of the series gives the error.
            let chosen = match texts.as_slice() {
                [only] => only,
                texts => texts.iter().find(|text| patch(text, tree, true, log).is_ok()).unwrap_or(&texts[0]),
            };
            patch(chosen, tree, false, log)?;
            step.advance(1, &chosen.path.file_name().unwrap_or_default().to_string_lossy());
        }
        Ok(())
    }
}

fn is_patch(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "patch")
}

/// Applies a patch, or only tries to.
fn patch(text: &Text, tree: &Path, only_try: bool, log: &Path) -> Result<(), ProvisionError> {
    let name = text.path.file_name().unwrap_or_default().to_string_lossy();
    let mut input = tempfile::NamedTempFile::new().context("create a file in", std::env::temp_dir())?;
    input.write_all(&text.content).context("write", input.path())?;
    // `patch` writes a new file and renames it, so a tree that shares the old one by a hard link does not change.
    let mut patch = Command::new("patch");
    patch.args(["--strip=1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-"]);
    patch.args(only_try.then_some("--dry-run"));
    patch.arg("--directory").arg(tree).arg("--input").arg(input.path());
    let mut refused = Refused::default();
    match run(&format!("applying {name}"), patch, log, PATCH_LIMITS, |line| refused.line(line)) {
        Err(RunError::Failed { log, .. }) => {
            Err(ProvisionError::PatchRefused { patch: text.path.clone(), why: refused.why(), log })
        }
        result => Ok(result?),
    }
}

/// The failures in the output of `patch`.
#[derive(Debug, Default)]
struct Refused {
    file: String,
    hunks: Vec<String>,
    last: String,
}

impl Refused {
    fn line(&mut self, line: &str) {
        if let Some(file) = line.strip_prefix("patching file ").or_else(|| line.strip_prefix("checking file ")) {
            self.file = file.to_owned();
        } else if let Some(hunk) = line.strip_prefix("Hunk ").filter(|hunk| hunk.contains(" FAILED at ")) {
            self.hunks.push(format!("{}: hunk {}", self.file, hunk.trim_end_matches('.')));
        } else if line.starts_with("Reversed (or previously applied) patch detected") {
            self.hunks.push(format!("{}: already applied", self.file));
        }
        self.last = line.to_owned();
    }

    fn why(self) -> String {
        if self.hunks.is_empty() { self.last } else { self.hunks.join("; ") }
    }
}

#[cfg(test)]
mod tests;
