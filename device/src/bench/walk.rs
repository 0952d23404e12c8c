//! The files below a directory, found by all cores: looking up 50,000 files takes one core a third of a second.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::input::{Contents, Look, cannot_read, contents, is_sparse};

/// What one directory has.
#[derive(Debug)]
pub(super) struct Listing {
    directory: PathBuf,
    /// Its regular files that are not empty, names sorted.
    pub(super) files: Vec<(PathBuf, Contents)>,
    /// Neither file nor directory.
    pub(super) skipped: u64,
    /// What could not be read, a sentence each.
    pub(super) failures: Vec<String>,
    below: Vec<PathBuf>,
}

/// A listing of every directory from `top` down, without following symbolic links: parents first, names sorted, so that
/// the same tree gives the same pages in the same order. An interrupt ends it early.
pub(super) fn walk(top: &Path, threads: usize, as_is: bool, interrupted: &AtomicBool) -> Vec<Listing> {
    let mut listings = Vec::new();
    let mut level = vec![top.to_path_buf()];
    while !level.is_empty() && !interrupted.load(Relaxed) {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads.min(level.len()) {
                scope.spawn(|| {
                    while let Some(directory) = level.get(next.fetch_add(1, Relaxed))
                        && !interrupted.load(Relaxed)
                    {
                        let listing = Listing::of(directory, as_is);
                        found.lock().push(listing);
                    }
                });
            }
        });
        let mut found = found.into_inner();
        level = found.iter_mut().flat_map(|listing| std::mem::take(&mut listing.below)).collect();
        listings.append(&mut found);
    }
    listings.sort_unstable_by(|a, b| a.directory.cmp(&b.directory));
    listings
}

impl Listing {
    fn of(directory: &Path, as_is: bool) -> Self {
        let mut listing = Self {
            directory: directory.to_path_buf(),
            files: Vec::new(),
            skipped: 0,
            failures: Vec::new(),
            below: Vec::new(),
        };
        // Names that cannot be looked up are left out and reported.
        let mut entries = BTreeMap::new();
        match fs::read_dir(directory) {
            Ok(found) => {
                for entry in found {
                    match entry {
                        Ok(entry) => drop(entries.insert(entry.file_name(), entry)),
                        Err(error) => listing.failures.push(cannot_read(directory, &error)),
                    }
                }
            }
            Err(error) => listing.failures.push(cannot_read(directory, &error)),
        }
        for (name, entry) in entries {
            let path = directory.join(name);
            // By the open directory, not by its path: half the time.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => listing.below.push(path),
                Ok(meta) if meta.is_file() => {
                    let look = Look { named: false, as_is, sparse: is_sparse(&meta) };
                    match contents(&path, meta.len(), look) {
                        Ok(contents) if contents == Contents::default() => {}
                        Ok(contents) => listing.files.push((path, contents)),
                        Err(sentence) => listing.failures.push(sentence),
                    }
                }
                Ok(_) => listing.skipped += 1,
                Err(error) => listing.failures.push(cannot_read(&path, &error)),
            }
        }
        listing
    }
}
