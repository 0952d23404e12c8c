//! Marks a folder as our cache: with CACHEDIR.TAG, which backup programs know, and with a file of our own.
//!
//! CACHEDIR.TAG (<https://bford.info/cachedir/>) only marks a folder as a cache; our file says whose it is.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use super::error::{IoContext, ProvisionError};

const TAG: &str = "CACHEDIR.TAG";
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55
# The cache of cxl-cram: everything here can be fetched and built again. `cxl-cram-harness clean` empties it.
";
const OWN: &str = ".cxl-cram-cache";
const OWN_TEXT: &str = "cxl-cram cache, layout 1\n";

/// Whether a folder is marked: both names are regular files with the right content.
pub(super) fn is_there(folder: &Path) -> bool {
    let signature = TAG_TEXT.lines().next().unwrap_or_default();
    begins(&folder.join(TAG), signature) && begins(&folder.join(OWN), OWN_TEXT)
}

/// Whether this is the name of a marker file.
pub(super) fn is_name(name: &str) -> bool {
    name == TAG || name == OWN
}

/// Marks a folder. Fails on an existing file that is not ours, and leaves it unchanged.
pub(super) fn write(folder: &Path) -> Result<(), ProvisionError> {
    for (name, text) in [(TAG, TAG_TEXT), (OWN, OWN_TEXT)] {
        let file = folder.join(name);
        if begins(&file, text) {
            continue;
        }
        let mut new = tempfile::NamedTempFile::new_in(folder).context("write to", folder)?;
        new.write_all(text.as_bytes()).context("write", &file)?;
        match new.persist_noclobber(&file) {
            // Another run that creates this cache was first.
            Err(_) if begins(&file, text) => {}
            written => _ = written.map_err(|error| error.error).context("write", &file)?,
        }
    }
    Ok(())
}

/// Whether this is a regular file, not a link, and begins with `text`.
fn begins(file: &Path, text: &str) -> bool {
    let is_file = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file());
    let mut start = vec![0; text.len()];
    is_file && fs::File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == text.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_both_files_with_their_exact_content_mark_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(!is_there(folder.path()));
        write(folder.path()).unwrap();
        assert!(is_there(folder.path()));
        for (name, text) in [(TAG, "Signature: 8a477f597d28d172789f06886806bc5\n"), (OWN, ""), (OWN, "cxl-cram cache")]
        {
            fs::write(path(name), text).unwrap();
            assert!(!is_there(folder.path()), "{name}: {text}");
            assert!(write(folder.path()).is_err(), "an existing file must not be overwritten");
            assert_eq!(fs::read_to_string(path(name)).unwrap(), text);
            fs::remove_file(path(name)).unwrap();
            write(folder.path()).unwrap();
        }
        fs::remove_file(path(OWN)).unwrap();
        assert!(!is_there(folder.path()));
        fs::create_dir(path(OWN)).unwrap();
        assert!(!is_there(folder.path()));
        fs::remove_dir(path(OWN)).unwrap();
        std::os::unix::fs::symlink(path("victim"), path(OWN)).unwrap();
        assert!(!is_there(folder.path()));
        assert!(write(folder.path()).is_err());
        assert!(!path("victim").exists(), "a link must not be followed");
    }
}
