//! A clean view of a source tree that was built in place: a folder of symbolic links to its sources.
//!
//! The kernel's Makefile refuses to build elsewhere from a tree that has been built in place. The view leaves out what
//! was built, so the developer's objects stay as they are and need not be removed. What is a source is what git would
//! track: git is asked, with the tree's own `.gitignore` files and, where there is none, an empty repository outside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::cache::list;
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::host_tools::on_path;
use crate::provision::run::query;

/// The sources at the top of a tree. The rest of the files there is documentation, or was built.
const TOP: [&str; 3] = ["Kbuild", "Kconfig", "Makefile"];

/// Whether the kernel's Makefile takes the tree for one that was built in place.
pub(super) fn is_built_in_place(tree: &Path) -> bool {
    [".config", "include/config", "arch/x86/include/generated"].iter().any(|sign| tree.join(sign).exists())
}

/// Brings the view at `view` up to date with the tree. `repository` is a place for the empty repository.
pub(super) fn update(tree: &Path, view: &Path, repository: &Path) -> Result<(), ProvisionError> {
    let sources = sources(tree, repository)?;
    fs::create_dir_all(view).context("create", view)?;
    let present =
        prune(view, Path::new(""), &|path| sources.contains(path) && leads_to(&view.join(path), &tree.join(path)))?;
    for path in sources.difference(&present) {
        let link = view.join(path);
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder).context("create", folder)?;
        }
        symlink(tree.join(path), &link).context("create", &link)?;
    }
    Ok(())
}

/// The sources of the tree, relative to it.
fn sources(tree: &Path, repository: &Path) -> Result<BTreeSet<PathBuf>, ProvisionError> {
    let lacking = |why| ProvisionError::BuiltInPlace { tree: tree.to_owned(), why };
    if !tree.join(".gitignore").is_file() {
        return Err(lacking("has no .gitignore that tells its sources"));
    }
    if on_path("git").is_none() {
        return Err(lacking("there is no git that tells its sources"));
    }
    let mut git = Command::new("git");
    // Of another owner the tree may well be: it is going to be built, which trusts it with more.
    git.current_dir(tree).args(["-c", "safe.directory=*"]);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    if !tree.join(".git").exists() {
        let init = query(Command::new("git").args(["init", "--quiet", "--bare"]).arg(repository));
        init.ok_or(lacking("git cannot tell its sources"))?;
        git.arg("--git-dir").arg(repository).arg("--work-tree").arg(tree);
    }
    // Debian's own `.gitignore` ignores everything at the top level.
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--exclude=!/*"]);
    let text = query(&mut git).ok_or(lacking("git cannot tell its sources"))?;
    // A file that is deleted and not yet committed as such is still listed.
    let exists = |path: &&str| is_wanted(path) && fs::symlink_metadata(tree.join(path)).is_ok();
    Ok(text.split('\0').filter(exists).map(PathBuf::from).collect())
}

/// Whether a file that git lists is taken: all below folders, and at the top what takes part in a build.
fn is_wanted(path: &str) -> bool {
    path.contains('/') || TOP.contains(&path) || path.starts_with("localversion")
}

fn leads_to(link: &Path, target: &Path) -> bool {
    fs::read_link(link).is_ok_and(|found| found == target)
}

/// Removes what is not to stay, and folders that are empty then. Returns what stays.
fn prune(view: &Path, below: &Path, stays: &impl Fn(&Path) -> bool) -> Result<BTreeSet<PathBuf>, ProvisionError> {
    let mut present = BTreeSet::new();
    for path in list(&view.join(below))? {
        let inside = below.join(path.file_name().unwrap_or_default());
        if path.is_dir() && !path.is_symlink() {
            present.extend(prune(view, &inside, stays)?);
            // Succeeds for an empty one only.
            let _ = fs::remove_dir(&path);
        } else if stays(&inside) {
            present.insert(inside);
        } else {
            fs::remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(present)
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
