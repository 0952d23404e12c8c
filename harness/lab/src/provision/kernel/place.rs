//! Chooses the folder for a kernel build: in the product, or elsewhere if make does not support that path.
//!
//! The kernel's Makefile refuses a path with spaces or colons, and other characters are special for make or the shell. The
//! cache may have any name, so for such a build the source is copied to a plain path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::run::{Limits, run};
use crate::provision::error::{IoContext, ProvisionError};
use cxl_cram_kit::progress::Step;

/// A plain path with room for sources and objects.
const ELSEWHERE: &str = "/var/tmp";
const COPY_LIMITS: Limits = Limits::minutes(30, 30);

/// A source tree, and the folder for its objects.
pub(super) struct Place {
    pub(super) tree: PathBuf,
    pub(super) build: PathBuf,
    /// Removed after the build.
    _elsewhere: Option<TempDir>,
}

/// Chooses the place for a build of `tree` into `product`.
pub(super) fn of(tree: &Path, product: &Path, log: &Path, step: &mut Step) -> Result<Place, ProvisionError> {
    let (place, elsewhere) = if make_can_name(tree) && make_can_name(product) {
        (Place { tree: tree.into(), build: product.join("build"), _elsewhere: None }, false)
    } else {
        let folder = tempfile::Builder::new().prefix("cxl-cram-kernel-").tempdir_in(ELSEWHERE);
        let folder = folder.context("create a folder in", ELSEWHERE)?;
        let (tree, build) = (folder.path().join("tree"), folder.path().join("build"));
        (Place { tree, build, _elsewhere: Some(folder) }, true)
    };
    fs::create_dir(&place.build).context("create", &place.build)?;
    if elsewhere {
        step.note(&format!("make does not support the cache's path; building in {}", place.build.display()));
        step.phase("copying the source", 0);
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--"]).args([tree, &place.tree]);
        run("copying the kernel source", copy, log, COPY_LIMITS, |_| {})?;
    }
    Ok(place)
}

/// Whether a path has no special characters for make and the shell.
pub(super) fn make_can_name(path: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@%=,~".contains(byte) || !byte.is_ascii();
    path.as_os_str().as_encoded_bytes().iter().all(plain)
}

/// Moves a built file to its product, across file systems if necessary.
pub(super) fn keep(from: &Path, to: &Path) -> Result<(), ProvisionError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map(|_| ()).context("keep", from)
        }
        renamed => renamed.context("keep", from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_of_make_and_the_shell_are_not_plain() {
        assert!(make_can_name(Path::new("/home/é/.cache/cxl-cram/kernel-0123/build")));
        for name in ["a b", "a:b", "it's", "$HOME", "`id`", "a;b", "x*", "a#b", "(x)", "a\nb"] {
            assert!(!make_can_name(&Path::new("/tmp").join(name)), "{name}");
        }
    }
}
