//! The cache of finished products, each in a folder named after a hash of its inputs.
//!
//! A product is made in a hidden sibling folder and renamed when it is complete, so a killed run leaves nothing that looks
//! complete. One lock file per product keeps two runs from making the same thing at once; the kernel releases it with the
//! process that holds it. Finding a finished product takes one `stat` and no lock.
//!
//! A folder is a cache if it has our [`marker`], which is written when the cache is created. Only there is anything
//! removed, and only entries with the name of a product or of working state.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::process::interrupt::interrupted;

use super::error::{IoContext, ProvisionError};
use super::marker;

/// Hexadecimal digits of the hash in a folder's name: 48 bits, for a cache of tens of entries.
const KEY_DIGITS: usize = 12;
/// How long to wait for another run that is making the same product.
const LOCK_LIMIT: Duration = Duration::from_secs(60 * 60);
const LOCK_POLL: Duration = Duration::from_millis(200);
const MAKING: &str = ".making-";
const LOCK: &str = ".lock-";

/// A product: made once and kept in the folder `NAME-KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// QEMU and its libraries.
    Qemu,
    /// A kernel source tree.
    KernelSource,
    /// A built kernel.
    Kernel,
    /// A distribution's kernel.
    StockKernel,
    /// UEFI firmware.
    Firmware,
    /// Decompressed modules of a user's kernel.
    Modules,
    /// The guest program.
    GuestProgram,
    /// The guest tools.
    GuestTools,
    /// Packages that the user named.
    Packages,
    /// Real data to fill memory with.
    Corpus,
}

impl Product {
    const ALL: [Product; 10] = [
        Product::Qemu,
        Product::KernelSource,
        Product::Kernel,
        Product::StockKernel,
        Product::Firmware,
        Product::Modules,
        Product::GuestProgram,
        Product::GuestTools,
        Product::Packages,
        Product::Corpus,
    ];

    /// The start of its folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Product::Qemu => "qemu",
            Product::KernelSource => "kernel-source",
            Product::Kernel => "kernel",
            Product::StockKernel => "kernel-stock",
            Product::Firmware => "firmware",
            Product::Modules => "modules",
            Product::GuestProgram => "guest-program",
            Product::GuestTools => "guest-tools",
            Product::Packages => "guest-packages",
            Product::Corpus => "corpus",
        }
    }

    fn folder(self, key: &Key) -> String {
        format!("{}-{key}", self.name())
    }
}

/// Working state that is kept between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scratch {
    /// The output of the steps' programs.
    Logs,
    /// Lists and state of apt.
    Apt,
    /// The substitutes for pinned packages that the archive no longer has.
    Substitutes,
    /// Objects of the guest program.
    GuestProgramObjects,
    /// Objects of a developer's kernel tree.
    KernelOfTree(Key),
    /// Objects of a kernel tree's selftests.
    Selftests(Key),
}

impl Scratch {
    const KERNEL_OF_TREE: &str = "kernel-of-tree-";
    const SELFTESTS: &str = "selftests-";

    /// The name of the folder and of its lock.
    pub(super) fn name(&self) -> String {
        match self {
            Scratch::Logs => "logs".into(),
            Scratch::Apt => "apt".into(),
            Scratch::Substitutes => "substitutes".into(),
            Scratch::GuestProgramObjects => "guest-program-objects".into(),
            Scratch::KernelOfTree(key) => format!("{}{key}", Scratch::KERNEL_OF_TREE),
            Scratch::Selftests(key) => format!("{}{key}", Scratch::SELFTESTS),
        }
    }

    fn is_name(name: &str) -> bool {
        let fixed = [Scratch::Logs, Scratch::Apt, Scratch::Substitutes, Scratch::GuestProgramObjects];
        fixed.iter().any(|scratch| scratch.name() == name)
            || [Scratch::KERNEL_OF_TREE, Scratch::SELFTESTS]
                .iter()
                .any(|prefix| name.strip_prefix(prefix).is_some_and(Key::is_key))
    }
}

/// A hash of everything a product is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of a product made from these named inputs. Names and lengths are hashed too, so moving a byte from one
    /// input to the next changes the key.
    pub fn of(inputs: &[(&str, &[u8])]) -> Key {
        let mut hash = Sha256::new();
        for (name, bytes) in inputs {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let mut digits = format!("{:x}", hash.finalize());
        digits.truncate(KEY_DIGITS);
        Key(digits)
    }

    fn is_key(text: &str) -> bool {
        text.len() == KEY_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The product with a folder of this name.
fn product_of(name: &str) -> Option<Product> {
    let (product, key) = name.rsplit_once('-')?;
    Product::ALL.into_iter().find(|known| Key::is_key(key) && known.name() == product)
}

/// Whether the harness creates entries with this name in a cache.
fn is_ours(name: &str) -> bool {
    if let Some(making) = name.strip_prefix(MAKING) {
        return making.rsplit_once('.').is_some_and(|(product, random)| {
            product_of(product).is_some() && !random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric())
        });
    }
    let name = name.strip_prefix(LOCK).unwrap_or(name);
    product_of(name).is_some() || Scratch::is_name(name)
}

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The folder or file.
    pub path: PathBuf,
    /// Total size of the files below it, bytes.
    pub bytes: u64,
}

/// The folder that keeps everything fetched or built.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in `folder`, or in `$XDG_CACHE_HOME/cxl-cram` (`~/.cache/cxl-cram`). It need not exist.
    pub fn at(folder: Option<&Path>) -> Result<Cache, ProvisionError> {
        let root = match folder {
            Some(folder) => std::path::absolute(folder).context("find", folder)?,
            None => {
                xdg::BaseDirectories::with_prefix("cxl-cram").get_cache_home().ok_or(ProvisionError::NoCacheFolder)?
            }
        };
        Ok(Cache { root })
    }

    /// Like [`Self::at`], but creates and marks a missing cache.
    ///
    /// # Errors
    /// The folder is neither empty nor marked as ours, or cannot be created.
    pub fn open(folder: Option<&Path>) -> Result<Cache, ProvisionError> {
        let cache = Cache::at(folder)?;
        fs::create_dir_all(&cache.root).context("create", &cache.root)?;
        // List before checking the marker: another run that creates this cache writes the marker first.
        let names: Vec<String> = list(&cache.root)?.iter().map(|path| file_name(path)).collect();
        if marker::is_there(&cache.root) {
            return Ok(cache);
        }
        // A cache from before markers: in the default place, with a product and nothing foreign.
        let older = folder.is_none()
            && names.iter().any(|name| product_of(name).is_some())
            && names.iter().all(|name| is_ours(name));
        if !names.iter().all(|name| marker::is_name(name)) && !older {
            return Err(ProvisionError::ForeignFolder { path: cache.root });
        }
        match marker::write(&cache.root) {
            // A foreign CACHEDIR.TAG, or a link, must not be overwritten.
            Err(ProvisionError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(ProvisionError::ForeignFolder { path: cache.root })
            }
            written => written.map(|()| cache),
        }
    }

    /// An existing cache, to remove things from.
    ///
    /// # Errors
    /// The folder does not exist, or is not a cache.
    pub fn existing(folder: Option<&Path>) -> Result<Cache, ProvisionError> {
        let cache = Cache::at(folder)?;
        if !cache.root.exists() {
            let hint = "there is no cache to clean".into();
            return Err(ProvisionError::Missing { path: cache.root, hint });
        }
        if !marker::is_there(&cache.root) {
            return Err(ProvisionError::NoCache { path: cache.root });
        }
        Ok(cache)
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a step's log. Creates the folder.
    pub fn log(&self, step: &str) -> Result<PathBuf, ProvisionError> {
        let folder = self.scratch(Scratch::Logs)?;
        Ok(folder.join(format!("{step}.log")))
    }

    /// A folder for working state. Creates it.
    pub(super) fn scratch(&self, scratch: Scratch) -> Result<PathBuf, ProvisionError> {
        let folder = self.root.join(scratch.name());
        fs::create_dir_all(&folder).context("create", &folder)?;
        Ok(folder)
    }

    /// The finished product, if it exists.
    pub fn finished(&self, product: Product, key: &Key) -> Option<PathBuf> {
        let folder = self.root.join(product.folder(key));
        folder.is_dir().then_some(folder)
    }

    /// The finished product. If no run has made it yet, `make` fills the folder that it gets.
    pub fn product(
        &self,
        product: Product,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<(), ProvisionError>,
    ) -> Result<PathBuf, ProvisionError> {
        if let Some(folder) = self.finished(product, key) {
            return Ok(folder);
        }
        let name = product.folder(key);
        let _lock = self.lock(&name, LOCK_LIMIT)?;
        if let Some(folder) = self.finished(product, key) {
            return Ok(folder);
        }
        // Leftovers are from killed runs: we hold the lock, so no run works on them. A compiler that outlived its run may
        // still write there, so the folder's name is new each time, and removal may fail for now.
        let prefix = format!("{MAKING}{name}.");
        for leftover in list(&self.root)?.iter().filter(|path| file_name(path).starts_with(&prefix)) {
            let _ = remove(leftover);
        }
        let making = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.root);
        let making = making.context("create a folder in", &self.root)?;
        make(making.path())?;
        let finished = self.root.join(&name);
        fs::rename(making.path(), &finished).context("rename to", &finished)?;
        // After the rename, there is no folder for the guard to remove.
        let _ = making.keep();
        Ok(finished)
    }

    /// Whether another run holds a product's lock. Only for display, because the answer may be outdated at once.
    pub fn is_busy(&self, product: Product, key: &Key) -> bool {
        matches!(self.lock(&product.folder(key), Duration::ZERO), Err(ProvisionError::Locked { .. }))
    }

    /// Takes a named lock, waiting at most `limit` for other processes. Dropping the file releases it.
    pub fn lock(&self, name: &str, limit: Duration) -> Result<File, ProvisionError> {
        lock(&self.root.join(format!("{LOCK}{name}")), name, limit)
    }

    /// All our entries in the cache, sorted by name. A missing cache has none.
    pub fn entries(&self) -> Result<Vec<Entry>, ProvisionError> {
        let mut entries = Vec::new();
        if !self.root.exists() {
            return Ok(entries);
        }
        for path in list(&self.root)? {
            let name = file_name(&path);
            if is_ours(&name) && !name.starts_with(LOCK) {
                entries.push(Entry { bytes: size(&path)?, path });
            }
        }
        Ok(entries)
    }

    /// Foreign entries in the cache.
    pub fn strangers(&self) -> Result<Vec<PathBuf>, ProvisionError> {
        let is_stranger = |path: &PathBuf| !is_ours(&file_name(path)) && !marker::is_name(&file_name(path));
        Ok(list(&self.root)?.into_iter().filter(is_stranger).collect())
    }

    /// Removes an entry. A product is renamed first, so that a partly removed one never looks complete.
    fn remove(&self, path: &Path, name: &str) -> Result<(), ProvisionError> {
        if product_of(name).is_none() || file_name(path).starts_with(MAKING) {
            return remove(path);
        }
        let going = self.root.join(format!("{MAKING}{name}.removed{}", std::process::id()));
        fs::rename(path, &going).context("rename", path)?;
        remove(&going)
    }

    /// Removes all our entries except those that another run is making. Returns the removed ones.
    pub fn clean(&self) -> Result<Vec<Entry>, ProvisionError> {
        let mut removed = Vec::new();
        for entry in self.entries()? {
            if interrupted() {
                return Ok(removed);
            }
            let name = file_name(&entry.path);
            let product =
                name.strip_prefix(MAKING).and_then(|making| Some(making.rsplit_once('.')?.0)).unwrap_or(&name);
            match self.lock(product, Duration::ZERO) {
                Ok(_lock) => self.remove(&entry.path, product)?,
                Err(ProvisionError::Locked { .. }) => continue,
                Err(error) => return Err(error),
            }
            removed.push(entry);
        }
        // A lock that another run holds is refused. A run that waits for one notices that the file is gone and opens it again.
        for path in list(&self.root)? {
            let name = file_name(&path);
            if let Some(locked) = name.strip_prefix(LOCK).filter(|_| is_ours(&name))
                && let Ok(_lock) = self.lock(locked, Duration::ZERO)
            {
                remove(&path)?;
            }
        }
        Ok(removed)
    }
}

/// Locks a file, creating it if necessary, and waits at most `limit`. `what` names the locked thing in the error.
pub(super) fn lock(path: &Path, what: &str, limit: Duration) -> Result<File, ProvisionError> {
    let start = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        // Do not follow a link that another user may have put there.
        options.create(true).truncate(false).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path).context("open the lock", path)?;
        match file.try_lock() {
            // `clean` may have removed the file between our opening and locking it. Then the lock protects nothing.
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) if interrupted() => {
                return Err(std::io::ErrorKind::Interrupted.into()).context("wait for", path);
            }
            Err(TryLockError::WouldBlock) if start.elapsed() < limit => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(ProvisionError::Locked { what: what.to_owned(), limit }),
            Err(TryLockError::Error(error)) => return Err(error).context("lock", path),
        }
    }
}

/// Whether an open file is still the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
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

/// All regular files below a folder, sorted, without symbolic links.
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

/// Removes a file or a folder with its contents, if it exists.
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
mod tests;
