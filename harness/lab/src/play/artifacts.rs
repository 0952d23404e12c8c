//! The folders that scenarios leave their files in.
//!
//! The harness empties a folder only if it made it, which a marker file shows. If anything else has a scenario's name, the
//! harness leaves it alone and refuses the run before it begins.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};
use thiserror::Error;

use crate::workspace::in_workspace;

/// The file that marks a folder as the harness's own.
const MARKER: &str = ".cxl-cram-artifacts";
/// Its content.
const MARK: &str = "Made by cxl-cram-harness, which empties this folder before the scenario runs again.\n";
/// Marks a folder as a cache, which backup programs skip (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "CACHEDIR.TAG";
/// Its content.
const CACHE_TAG_TEXT: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# Made by cxl-cram-harness: what the last runs of scenarios left.\n";

/// Why a folder cannot hold artifacts.
#[derive(Debug, Error)]
pub enum ArtifactsError {
    /// Something that the harness did not make has this name.
    #[error("{path} {what}, so it is left alone; move it away or give another --artifacts folder")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// It is not writable.
    #[error("cannot write to {path}; give --artifacts a folder that can be written")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// This checkout's artifact folder, which may hold folders from before there were markers.
fn default_folder() -> PathBuf {
    in_workspace("target/cxl-cram")
}

/// Creates `top` if it is missing, and checks that these scenarios can leave their artifacts in it.
///
/// # Errors
/// `top` is not writable, or the harness did not make something in it that has a scenario's name.
pub fn prepare<'a>(top: &Path, scenarios: impl IntoIterator<Item = &'a str>) -> Result<(), ArtifactsError> {
    let unwritable = |source| ArtifactsError::Unwritable { path: top.to_owned(), source };
    if !top.exists() {
        fs::create_dir_all(top).map_err(unwritable)?;
        fs::write(top.join(CACHE_TAG), CACHE_TAG_TEXT).map_err(unwritable)?;
    }
    tempfile::tempfile_in(top).map_err(unwritable)?;
    for name in scenarios {
        let folder = top.join(name);
        if state(&folder)? != State::Absent {
            access(&folder, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|error| ArtifactsError::Unwritable { path: folder, source: error.into() })?;
        }
    }
    Ok(())
}

/// Claims a folder for the harness: creates it if it is missing, and marks it. Keeps its content.
///
/// # Errors
/// The folder is not writable, or it has content and no marker.
pub fn claim(folder: &Path) -> Result<(), ArtifactsError> {
    let unwritable = |source| ArtifactsError::Unwritable { path: folder.to_owned(), source };
    if state(folder)? == State::Absent {
        fs::create_dir_all(folder).map_err(unwritable)?;
    }
    match File::create_new(folder.join(MARKER)) {
        Ok(mut marker) => marker.write_all(MARK.as_bytes()).map_err(unwritable),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unwritable(error)),
    }
}

/// Claims a folder as [`claim`] does, and removes what an earlier run left.
///
/// # Errors
/// As [`claim`], or a file in it cannot be removed.
pub fn claim_empty(folder: &Path) -> Result<(), ArtifactsError> {
    claim(folder)?;
    let unwritable = |source| ArtifactsError::Unwritable { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(unwritable)? {
        let entry = entry.map_err(unwritable)?;
        // Keep the marker, so that the folder stays ours if the removal is cut short.
        if entry.file_name() == MARKER {
            continue;
        }
        let is_folder = entry.file_type().map_err(unwritable)?.is_dir();
        let remove = if is_folder { fs::remove_dir_all } else { fs::remove_file };
        remove(entry.path()).map_err(unwritable)?;
    }
    Ok(())
}

/// The state of a folder that may be used for artifacts.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Absent,
    Empty,
    Ours,
}

fn state(folder: &Path) -> Result<State, ArtifactsError> {
    state_with(folder, &default_folder())
}

/// Inspects a folder without following symbolic links. Folders in `default` need no marker: some predate it.
fn state_with(folder: &Path, default: &Path) -> Result<State, ArtifactsError> {
    let foreign = |what| Err(ArtifactsError::Foreign { path: folder.to_owned(), what });
    let unreadable = |source| ArtifactsError::Unwritable { path: folder.to_owned(), source };
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
        Err(error) => return Err(unreadable(error)),
        Ok(there) if there.is_symlink() => return foreign("is a symbolic link"),
        Ok(there) if !there.is_dir() => return foreign("is not a folder"),
        Ok(_) => {}
    }
    if fs::read_dir(folder).map_err(unreadable)?.next().is_none() {
        return Ok(State::Empty);
    }
    match fs::symlink_metadata(folder.join(MARKER)) {
        Ok(there) if there.is_file() && is_mark(&folder.join(MARKER)).map_err(unreadable)? => Ok(State::Ours),
        // Everything below the build folder can be made again.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.parent() == Some(default) => Ok(State::Ours),
        _ => foreign("was not made by cxl-cram-harness (it has no marker)"),
    }
}

fn is_mark(marker: &Path) -> io::Result<bool> {
    let mut text = Vec::new();
    File::open(marker)?.take(MARK.len() as u64 + 1).read_to_end(&mut text)?;
    Ok(text == MARK.as_bytes())
}

/// The names of the files that a scenario left, without the marker.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != MARKER)
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// An artifact folder in which `zeros`, a scenario's folder, holds a file that must survive.
    fn with_precious_file() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("zeros");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("thesis.tex"), "years").unwrap();
        (top, folder)
    }

    fn is_refused(top: &Path) -> String {
        let checked = prepare(top, ["zeros"]).unwrap_err().to_string();
        assert_eq!(claim_empty(&top.join("zeros")).unwrap_err().to_string(), checked);
        assert_eq!(claim(&top.join("zeros")).unwrap_err().to_string(), checked);
        assert!(checked.contains("left alone") && checked.contains("--artifacts"), "{checked}");
        checked
    }

    #[test]
    fn a_folder_is_emptied_when_its_scenario_runs_again() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("new/zeros");
        for _ in 0..2 {
            prepare(&top.path().join("new"), ["zeros"]).unwrap();
            claim_empty(&folder).unwrap();
            assert_eq!(files(&folder), [""; 0]);
            fs::create_dir(folder.join("firmware")).unwrap();
            fs::write(folder.join("firmware/qemu.log"), "").unwrap();
            fs::write(folder.join("console.log"), "").unwrap();
        }
        assert!(top.path().join("new").join(CACHE_TAG).is_file(), "the folder was made here");
        claim(&folder).unwrap();
        assert_eq!(files(&folder), ["console.log"], "claimed and not emptied");
    }

    #[test]
    fn an_existing_folder_gets_no_cache_tag() {
        let top = tempfile::tempdir().unwrap();
        prepare(top.path(), ["zeros"]).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_without_a_marker_is_left_alone() {
        let (top, folder) = with_precious_file();
        is_refused(top.path());
        assert_eq!(fs::read_to_string(folder.join("thesis.tex")).unwrap(), "years");
    }

    #[test]
    fn a_folder_with_a_malformed_marker_is_left_alone() {
        for content in ["", "mine\n", &format!("{MARK}more\n"), MARK.trim_end()] {
            let (top, folder) = with_precious_file();
            fs::write(folder.join(MARKER), content).unwrap();
            is_refused(top.path());
            assert!(folder.join("thesis.tex").exists(), "{content:?}");
        }
        let (top, folder) = with_precious_file();
        fs::create_dir(folder.join(MARKER)).unwrap();
        is_refused(top.path());
        assert!(folder.join("thesis.tex").exists(), "a folder");
        let (top, folder) = with_precious_file();
        fs::write(top.path().join("marker"), MARK).unwrap();
        symlink(top.path().join("marker"), folder.join(MARKER)).unwrap();
        is_refused(top.path());
        assert!(folder.join("thesis.tex").exists(), "a link to a real one");
    }

    #[test]
    fn a_link_or_file_in_place_of_a_folder_is_left_alone() {
        let (elsewhere, precious) = with_precious_file();
        fs::write(precious.join(MARKER), MARK).unwrap();
        let top = tempfile::tempdir().unwrap();
        symlink(&precious, top.path().join("zeros")).unwrap();
        assert!(is_refused(top.path()).contains("symbolic link"));
        assert!(precious.join("thesis.tex").exists());
        symlink("/nonexistent", top.path().join("zero")).unwrap();
        assert!(prepare(top.path(), ["zero"]).is_err(), "a link to nothing");
        fs::write(elsewhere.path().join("file"), "kept").unwrap();
        assert!(prepare(elsewhere.path(), ["file"]).unwrap_err().to_string().contains("not a folder"));
        assert!(prepare(&elsewhere.path().join("file"), ["zeros"]).is_err(), "a file for all of them");
        assert_eq!(fs::read_to_string(elsewhere.path().join("file")).unwrap(), "kept");
    }

    #[test]
    fn only_the_default_folder_may_hold_folders_without_a_marker() {
        let (top, folder) = with_precious_file();
        assert_eq!(state_with(&folder, top.path()).unwrap(), State::Ours);
        assert!(state_with(&folder, Path::new("/elsewhere")).is_err());
        assert!(state_with(&folder, &folder).is_err());
        symlink(&folder, top.path().join("link")).unwrap();
        assert!(state_with(&top.path().join("link"), top.path()).is_err());
        fs::write(folder.join(MARKER), "mine").unwrap();
        assert!(state_with(&folder, top.path()).is_err());
    }

    #[test]
    fn emptying_a_folder_does_not_follow_links() {
        let (_elsewhere, precious) = with_precious_file();
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("zeros");
        claim_empty(&folder).unwrap();
        symlink(&precious, folder.join("firmware")).unwrap();
        claim_empty(&folder).unwrap();
        assert!(!folder.join("firmware").exists() && precious.join("thesis.tex").exists());
    }
}
