//! Builds the kernel's own selftests of what this project's series add, for scenarios that run them in the guest.
//!
//! They are static programs, because the guest's tools have only the libraries that these tools need. A kernel without them
//! has no such folder, and the scenarios skip.

use std::fs;
use std::path::{Path, PathBuf};

use super::build::{BUILD_LIMITS, kernel_make};
use crate::process::run::run;
use crate::provision::cache::{list, remove};
use crate::provision::elf::is_static;
use crate::provision::error::{IoContext, ProvisionError};
use cxl_cram_kit::progress::Step;

/// Where the guest has them: a folder for each target of the kernel's `tools/testing/selftests`.
pub(crate) const IN_GUEST: &str = "/usr/lib/selftests";
/// Where a kernel tree has its selftests.
const FOLDER: &str = "tools/testing/selftests";
/// The folders there with tests of this project's series.
const TARGETS: [&str; 2] = ["private_nodes", "cram"];
/// Where make puts them, below the folder for objects.
const BUILT: &str = "kselftest";

/// Builds the selftests that the tree has into a root folder for the guest, which replaces an earlier one. Without
/// selftests there is no such folder.
pub(super) fn build(
    source: &Path,
    build: &Path,
    root: &Path,
    log: &Path,
    step: &mut Step,
) -> Result<(), ProvisionError> {
    if root.exists() {
        remove(root)?;
    }
    let tests = source.join(FOLDER);
    let targets: Vec<&str> = TARGETS.into_iter().filter(|target| tests.join(target).is_dir()).collect();
    if targets.is_empty() {
        return Ok(());
    }
    step.phase("building its selftests", 0);
    let mut make = kernel_make(&tests, build);
    make.arg(format!("TARGETS={}", targets.join(" "))).args(["FORCE_TARGETS=1", "USERLDFLAGS=-static -s"]);
    run("building the kernel's selftests", make, log, BUILD_LIMITS, |line| step.advance(0, line.trim()))?;
    for target in targets {
        let kept = root.join(&IN_GUEST[1..]).join(target);
        fs::create_dir_all(&kept).context("create", &kept)?;
        for program in programs(&build.join(BUILT).join(target))? {
            if !is_static(&program)? {
                return Err(ProvisionError::Elf { path: program, why: "it is not statically linked".into() });
            }
            let to = kept.join(program.file_name().unwrap_or_default());
            fs::copy(&program, &to).context("copy", &program)?;
        }
    }
    Ok(())
}

/// The programs that make has put into a folder, which has nothing else in it.
fn programs(folder: &Path) -> Result<Vec<PathBuf>, ProvisionError> {
    Ok(list(folder)?.into_iter().filter(|path| path.is_file()).collect())
}

/// The root folder with the selftests, if the kernel has any.
pub(super) fn found(root: PathBuf) -> Option<PathBuf> {
    Some(root).filter(|root| root.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cxl_cram_kit::progress::Progress;

    #[test]
    fn selftests_that_the_tree_has_lost_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("selftests");
        fs::create_dir_all(root.join("usr")).unwrap();
        let mut step = Progress::quiet().step(1, 1, "x");
        let nothing = folder.path().join("tree");
        build(&nothing, folder.path(), &root, &folder.path().join("log"), &mut step).unwrap();
        assert_eq!(found(root), None);
    }
}
