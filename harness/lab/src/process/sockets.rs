//! A temporary folder for sockets, whose names Linux limits to 108 bytes.

use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Where folders with short names can be made when `TMPDIR` is too deep.
const SHORT: &str = "/tmp";
/// Bytes of the longest name of folder and socket: `/cxl-cram-AbCdEf/device99.control`.
const NAMES: usize = 40;
/// `sun_path` with its closing NUL (unix(7)).
const LONGEST: usize = 107;

/// Makes a folder in `TMPDIR`, or in `/tmp` if the path of a socket in `TMPDIR` would be too long.
///
/// # Errors
/// The folder cannot be created.
pub(crate) fn folder() -> Result<TempDir> {
    let usual = std::env::temp_dir();
    let parent = if fits(&usual) { usual.as_path() } else { Path::new(SHORT) };
    let folder = tempfile::Builder::new().prefix("cxl-cram-").tempdir_in(parent);
    folder.with_context(|| format!("cannot make a folder in {}; set TMPDIR to a writable folder", parent.display()))
}

fn fits(parent: &Path) -> bool {
    parent.as_os_str().len() + NAMES <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_folder_is_passed_over() {
        assert!(fits(Path::new("/tmp")) && fits(&Path::new("/").join("x".repeat(66))));
        assert!(!fits(&Path::new("/").join("x".repeat(67))));
    }
}
