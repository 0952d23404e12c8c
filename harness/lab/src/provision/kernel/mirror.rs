//! A clean view of a source tree that was built in place: a folder of symbolic links to its sources.
//!
//! The kernel's Makefile refuses to build elsewhere from a tree that was built in place. The view omits built files, so
//! the developer's objects need not be removed. The sources are the files that git would track by the tree's `.gitignore`
//! files; if the tree is not a repository, git uses an empty one outside of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run::query;
use crate::provision::cache::list;
use crate::provision::error::{IoContext, ProvisionError};
use crate::provision::host_tools::on_path;

/// The sources at the top of a tree. Other files there are documentation or built.
const TOP: [&str; 3] = ["Kbuild", "Kconfig", "Makefile"];

/// Whether the kernel's Makefile would consider the tree built in place.
pub(super) fn is_built_in_place(tree: &Path) -> bool {
    [".config", "include/config", "arch/x86/include/generated"].iter().any(|sign| tree.join(sign).exists())
}

/// Updates the view of a tree. `repository` is the path for the empty repository.
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
        return Err(lacking("it has no .gitignore to identify its sources"));
    }
    if on_path("git").is_none() {
        return Err(lacking("git, which identifies its sources, is not installed"));
    }
    let mut git = Command::new("git");
    // The tree may belong to another user. Building it trusts it with more than git does.
    git.current_dir(tree).args(["-c", "safe.directory=*"]);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    if !tree.join(".git").exists() {
        let init = query(Command::new("git").args(["init", "--quiet", "--bare"]).arg(repository));
        init.ok_or(lacking("git cannot list its sources"))?;
        git.arg("--git-dir").arg(repository).arg("--work-tree").arg(tree);
    }
    // Debian's own `.gitignore` ignores everything at the top level.
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--exclude=!/*"]);
    let text = query(&mut git).ok_or(lacking("git cannot list its sources"))?;
    // Git still lists a deleted file if the deletion is not committed.
    let exists = |path: &&str| is_wanted(path) && fs::symlink_metadata(tree.join(path)).is_ok();
    Ok(text.split('\0').filter(exists).map(PathBuf::from).collect())
}

/// Whether a listed file belongs to the view: all files in folders, and at the top those that a build reads.
fn is_wanted(path: &str) -> bool {
    path.contains('/') || TOP.contains(&path) || path.starts_with("localversion")
}

fn leads_to(link: &Path, target: &Path) -> bool {
    fs::read_link(link).is_ok_and(|found| found == target)
}

/// Removes entries for which `stays` is false, and folders that become empty. Returns the remaining ones.
fn prune(view: &Path, below: &Path, stays: &impl Fn(&Path) -> bool) -> Result<BTreeSet<PathBuf>, ProvisionError> {
    let mut present = BTreeSet::new();
    for path in list(&view.join(below))? {
        let inside = below.join(path.file_name().unwrap_or_default());
        if path.is_dir() && !path.is_symlink() {
            present.extend(prune(view, &inside, stays)?);
            // Succeeds only if it is empty.
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
mod tests;
