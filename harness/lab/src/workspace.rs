//! Finds the checkout that the harness works from.
//!
//! The guest program's source, the kernel's configuration and patches, the pins and the snapshots are files in it.

use std::path::{Path, PathBuf};

/// Names the checkout when it is neither where this program was built nor around it.
pub const VARIABLE: &str = "CXL_CRAM_WORKSPACE";
/// A file that identifies a checkout.
const SIGN: &str = "guest-tests/kernel/guest.config";

/// No checkout was found.
#[derive(Debug, thiserror::Error)]
pub enum NoWorkspace {
    /// The variable does not name a checkout.
    #[error(
        "CXL_CRAM_WORKSPACE names {}, which is not a checkout of cxl-cram (it has no {SIGN}); set it to the folder above guest-tests", .0.display()
    )]
    Named(PathBuf),
    /// The checkout that the program was built in is gone, and the program runs outside of any other.
    #[error(
        "the checkout that this program was built from is no longer at {}; run inside a checkout, or name one in CXL_CRAM_WORKSPACE", .0.display()
    )]
    Gone(PathBuf),
}

/// Finds the checkout: the one that `CXL_CRAM_WORKSPACE` names, else the one this program was built in, else the one
/// around the current folder or around the program's own file.
///
/// # Errors
/// The variable names something else, or there is no checkout in any of these places.
pub fn workspace() -> Result<PathBuf, NoWorkspace> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from) {
        let named = std::path::absolute(&named).unwrap_or(named);
        return if is_checkout(&named) { Ok(named) } else { Err(NoWorkspace::Named(named)) };
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built_in = lab.ancestors().nth(2).unwrap_or(lab);
    let around = |place: std::io::Result<PathBuf>| place.ok().and_then(|place| checkout_around(&place));
    let found = is_checkout(built_in).then(|| built_in.to_owned());
    let found = found.or_else(|| around(std::env::current_dir())).or_else(|| around(std::env::current_exe()));
    found.ok_or_else(|| NoWorkspace::Gone(built_in.to_owned()))
}

/// A path in the checkout. Without a checkout it is relative, so that an error about the missing file still names it.
pub fn in_workspace(name: &str) -> PathBuf {
    workspace().unwrap_or_default().join(name)
}

fn checkout_around(place: &Path) -> Option<PathBuf> {
    place.ancestors().find(|folder| is_checkout(folder)).map(Path::to_owned)
}

fn is_checkout(folder: &Path) -> bool {
    folder.join(SIGN).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_around_a_place_is_the_nearest_folder_that_looks_like_one() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("target/release");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(checkout_around(&inner), None);
        let sign = folder.path().join(SIGN);
        std::fs::create_dir_all(sign.parent().unwrap()).unwrap();
        std::fs::write(sign, "").unwrap();
        assert_eq!(checkout_around(&inner).as_deref(), Some(folder.path()));
        assert_eq!(checkout_around(folder.path()).as_deref(), Some(folder.path()));
    }

    #[test]
    fn the_tests_run_in_the_checkout_they_were_built_in() {
        assert!(workspace().unwrap().join("harness/lab/src/workspace.rs").is_file());
    }
}
