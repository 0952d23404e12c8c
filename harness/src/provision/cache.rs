//! The cache: finished products, each in a folder named after a hash of its inputs.
//!
//! A product is made in a hidden sibling folder and renamed when it is complete, so a killed run leaves nothing that is
//! taken for whole. One lock file per product keeps two runs from making the same thing at once; the lock goes away
//! with the process that holds it. Finding a finished product takes one `stat` and no lock.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::interrupt::interrupted;

use super::error::{IoContext, ProvisionError};

/// A product's folder holds this much of its key's hash: 48 bits, for a cache of tens of entries.
const KEY_DIGITS: usize = 12;
/// How long to wait for another run that is making the same product.
const LOCK_LIMIT: Duration = Duration::from_secs(60 * 60);
const LOCK_POLL: Duration = Duration::from_millis(200);
const MAKING: &str = ".making-";
const LOCK: &str = ".lock-";

/// A hash of everything a product is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a product made from these named inputs. Names and lengths are hashed too: moving a byte from one
    /// input to the next gives another key.
    pub fn of(inputs: &[(&str, &[u8])]) -> Key {
        let mut hash = Sha256::new();
        for (name, bytes) in inputs {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let mut digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        digits.truncate(KEY_DIGITS);
        Key(digits)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing in the cache, as [`Cache::entries`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its folder or file.
    pub path: PathBuf,
    /// Bytes of file contents below it.
    pub bytes: u64,
}

/// The folder that keeps everything a run fetched or built.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in `folder`, or in `$XDG_CACHE_HOME/cxl-cram` (`~/.cache/cxl-cram`), creating it if need be.
    pub fn open(folder: Option<&Path>) -> Result<Cache, ProvisionError> {
        let root = match folder {
            Some(folder) => std::path::absolute(folder).context("find", folder)?,
            None => {
                xdg::BaseDirectories::with_prefix("cxl-cram").get_cache_home().ok_or(ProvisionError::NoCacheFolder)?
            }
        };
        fs::create_dir_all(&root).context("create", &root)?;
        Ok(Cache { root })
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the log of a step is kept; the folder exists afterwards.
    pub fn log(&self, step: &str) -> Result<PathBuf, ProvisionError> {
        let folder = self.scratch("logs")?;
        Ok(folder.join(format!("{step}.log")))
    }

    /// A folder for working state that outlives a run (a package manager's lists, a compiler's objects).
    pub fn scratch(&self, name: &str) -> Result<PathBuf, ProvisionError> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).context("create", &folder)?;
        Ok(folder)
    }

    /// The finished product, if it is there.
    pub fn finished(&self, name: &str, key: &Key) -> Option<PathBuf> {
        let folder = self.root.join(format!("{name}-{key}"));
        folder.is_dir().then_some(folder)
    }

    /// The finished product; `make` fills the folder it is given if no run has made the product before.
    pub fn product(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), ProvisionError>,
    ) -> Result<PathBuf, ProvisionError> {
        if let Some(folder) = self.finished(name, key) {
            return Ok(folder);
        }
        let _lock = self.lock(&format!("{name}-{key}"), LOCK_LIMIT)?;
        if let Some(folder) = self.finished(name, key) {
            return Ok(folder);
        }
        // Leftovers are of runs that were killed: the lock says that nobody works on them. A compiler that outlived its
        // run may still write there, so the folder's name is new each time and removal may fail for now.
        let prefix = format!("{MAKING}{name}-{key}.");
        for leftover in list(&self.root)?.iter().filter(|path| file_name(path).starts_with(&prefix)) {
            let _ = remove(leftover);
        }
        let making = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.root);
        let making = making.context("create a folder in", &self.root)?;
        make(making.path())?;
        let finished = self.root.join(format!("{name}-{key}"));
        fs::rename(making.path(), &finished).context("rename to", &finished)?;
        // Its name is taken from it: there is nothing left to remove when it is dropped.
        let _ = making.keep();
        Ok(finished)
    }

    /// Whether another run holds a product's lock at this moment. For display: the answer may be old when it is read.
    pub fn is_busy(&self, name: &str, key: &Key) -> bool {
        matches!(self.lock(&format!("{name}-{key}"), Duration::ZERO), Err(ProvisionError::Locked { .. }))
    }

    /// Takes a named lock, waiting at most `limit` for another process. Dropping the file releases it.
    pub fn lock(&self, name: &str, limit: Duration) -> Result<File, ProvisionError> {
        let path = self.root.join(format!("{LOCK}{name}"));
        let start = Instant::now();
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .context("open the lock", &path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if interrupted() => {
                    return Err(std::io::ErrorKind::Interrupted.into()).context("wait for", &path);
                }
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < limit => std::thread::sleep(LOCK_POLL),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(ProvisionError::Locked { what: name.to_owned(), limit });
                }
                Err(errno) => return Err(errno.into()).context("lock", &path),
            }
        }
    }

    /// Everything in the cache, by name, with its size.
    pub fn entries(&self) -> Result<Vec<Entry>, ProvisionError> {
        let mut entries = Vec::new();
        for path in list(&self.root)? {
            if !file_name(&path).starts_with(LOCK) {
                entries.push(Entry { bytes: size(&path)?, path });
            }
        }
        Ok(entries)
    }

    /// Removes everything, except what another run is making at this moment. Returns what was removed.
    pub fn clean(&self) -> Result<Vec<Entry>, ProvisionError> {
        let mut removed = Vec::new();
        for entry in self.entries()? {
            let name = file_name(&entry.path);
            let product =
                name.strip_prefix(MAKING).and_then(|making| Some(making.rsplit_once('.')?.0)).unwrap_or(&name);
            match self.lock(product, Duration::ZERO) {
                Ok(_lock) => remove(&entry.path)?,
                Err(ProvisionError::Locked { .. }) => continue,
                Err(error) => return Err(error),
            }
            removed.push(entry);
        }
        // The lock files stay: removing one that a waiting run has open would let two runs hold "the" lock.
        Ok(removed)
    }
}

/// The paths in a folder, sorted.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, ProvisionError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).context("list", folder)? {
        paths.push(entry.context("list", folder)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// All regular files below a folder in sorted order, symbolic links left out.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, ProvisionError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).context("list", &folder)? {
            let entry = entry.context("list", &folder)?;
            let kind = entry.file_type().context("examine", entry.path())?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Removes a file or a folder with everything in it; nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<(), ProvisionError> {
    let gone = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

fn size(path: &Path) -> Result<u64, ProvisionError> {
    let metadata = fs::symlink_metadata(path).context("examine", path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for file in files_below(path)? {
        bytes += fs::symlink_metadata(&file).context("examine", &file)?.len();
    }
    Ok(bytes)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path())).unwrap();
        (folder, cache)
    }

    fn refuse(path: &Path) -> Result<(), ProvisionError> {
        Err(ProvisionError::Missing { path: path.to_owned(), hint: "on purpose".into() })
    }

    #[test]
    fn a_key_tells_apart_where_one_input_ends_and_the_next_begins() {
        assert_eq!(Key::of(&[("a", b"1"), ("b", b"2")]), Key::of(&[("a", b"1"), ("b", b"2")]));
        assert_ne!(Key::of(&[("a", b"12"), ("b", b"")]), Key::of(&[("a", b"1"), ("b", b"2")]));
        assert_ne!(Key::of(&[("ab", b"1")]), Key::of(&[("a", b"b1")]));
    }

    #[test]
    fn a_finished_product_is_not_made_again() {
        let (_folder, cache) = cache();
        let key = Key::of(&[("recipe", b"1")]);
        let made = cache.product("thing", &key, |folder| fs::write(folder.join("f"), "x").context("write", folder));
        let found = cache.product("thing", &key, |_| panic!("made twice")).unwrap();
        assert_eq!(made.unwrap(), found);
        assert_eq!(fs::read(found.join("f")).unwrap(), b"x");
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_is_taken_for_whole_and_the_next_starts_afresh() {
        let (_folder, cache) = cache();
        let key = Key::of(&[("recipe", b"1")]);
        let failed = cache.product("thing", &key, |folder| {
            fs::write(folder.join("half"), "x").context("write", folder)?;
            refuse(folder)
        });
        assert!(failed.is_err());
        assert_eq!(cache.finished("thing", &key), None);
        let made = cache.product("thing", &key, |_| Ok(())).unwrap();
        assert!(!made.join("half").exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_the_next() {
        let (folder, cache) = cache();
        let key = Key::of(&[("recipe", b"1")]);
        let leftover = folder.path().join(format!("{MAKING}thing-{key}.abc"));
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("half"), "x").unwrap();
        let made = cache.product("thing", &key, |_| Ok(())).unwrap();
        assert!(!leftover.exists());
        assert_eq!(list(&made).unwrap().len(), 0);
    }

    #[test]
    fn two_runs_at_once_make_a_product_once() {
        let (_folder, cache) = cache();
        let key = Key::of(&[("recipe", b"1")]);
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let make = |_: &Path| {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    };
                    cache.product("thing", &key, make).unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn clean_removes_products_and_leftovers_but_not_what_is_being_made() {
        let (_folder, cache) = cache();
        let key = Key::of(&[("recipe", b"1")]);
        cache.product("done", &key, |folder| fs::write(folder.join("f"), "four").context("write", folder)).unwrap();
        fs::create_dir(cache.root().join(format!("{MAKING}broken-{key}.abc"))).unwrap();
        cache
            .product("busy", &key, |making| {
                let removed = cache.clean()?;
                assert_eq!(removed.len(), 2);
                assert_eq!(removed.iter().map(|entry| entry.bytes).sum::<u64>(), 4);
                assert!(making.is_dir() && cache.is_busy("busy", &key));
                Ok(())
            })
            .unwrap();
        assert_eq!(cache.entries().unwrap().len(), 1);
    }
}
