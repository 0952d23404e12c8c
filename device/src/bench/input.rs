//! Where the pages are: inputs resolved to extents of pages, before any of them is read.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::core_file::{self, CoreError};
use super::{BenchArgs, PAGE, process};

/// In directories, files from this size on are looked into for a core dump. A smaller one is read as it is, which is
/// nearly the same pages.
const CORE_MIN: u64 = 1 << 20;

/// What can be read at an offset.
#[derive(Debug)]
pub(super) enum Origin {
    /// A regular file or block device.
    File(PathBuf),
    /// The memory of a process.
    Process(u32),
}

/// What can only be read once, from start to end.
#[derive(Debug)]
pub(super) enum Stream {
    /// Standard input.
    Stdin,
    /// A FIFO.
    Fifo(PathBuf),
}

/// Consecutive bytes of an origin; the last page is filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Index into [`Input::origins`].
    pub(super) origin: usize,
    /// Offset in the origin, or address in the process.
    pub(super) offset: u64,
    /// Bytes, not 0.
    pub(super) bytes: u64,
}

impl Extent {
    /// Pages it fills.
    pub(super) fn pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE as u64)
    }
}

/// Everything to be read.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The inputs as named.
    pub(super) what: String,
    /// What extents lie in.
    pub(super) origins: Vec<Origin>,
    /// In the order of the command line, names sorted within a directory.
    pub(super) extents: Vec<Extent>,
    /// Read after the extents.
    pub(super) streams: Vec<Stream>,
    /// Passed over in directories.
    pub(super) skipped: u64,
    /// What could not be read, a sentence each.
    pub(super) failures: Vec<String>,
}

impl Input {
    /// Resolves what the command line names. An interrupt ends it early.
    pub(super) fn find(args: &BenchArgs, interrupted: &AtomicBool) -> Self {
        let mut input = Self::default();
        if let Some(pid) = args.pid {
            input.what = format!("process {pid}");
            match process::resident(pid) {
                Ok(ranges) => {
                    input.origins.push(Origin::Process(pid));
                    input.extents.extend(ranges.into_iter().map(|(offset, bytes)| Extent { origin: 0, offset, bytes }));
                }
                Err(error) => input.failures.push(error.to_string()),
            }
            return input;
        }
        let stdin = [PathBuf::from("-")];
        let named = if args.inputs.is_empty() { &stdin[..] } else { &args.inputs };
        let names =
            named.iter().map(|path| if is_dash(path) { "standard input".into() } else { path.display().to_string() });
        input.what = names.collect::<Vec<_>>().join(", ");
        for path in named {
            input.add_named(path, interrupted);
        }
        input
    }

    /// Pages in the extents.
    pub(super) fn pages(&self) -> u64 {
        self.extents.iter().map(Extent::pages).sum()
    }

    fn add_named(&mut self, path: &Path, interrupted: &AtomicBool) {
        if is_dash(path) {
            match io::stdin().is_terminal() {
                true => self.fail("standard input is a terminal: name files, or --pid, or pipe data in"),
                false => self.streams.push(Stream::Stdin),
            }
            return;
        }
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) => return self.fail(cannot_read(path, &error)),
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            self.add_directory(path, interrupted);
        } else if kind.is_file() {
            self.add_file(path, meta.len(), 0);
        } else if kind.is_fifo() {
            self.streams.push(Stream::Fifo(path.into()));
        } else if kind.is_block_device() {
            match File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))) {
                Ok(len) => self.add_file(path, len, 0),
                Err(error) => self.fail(cannot_read(path, &error)),
            }
        } else {
            self.fail(format!("{} is neither file, directory, FIFO nor block device", path.display()));
        }
    }

    /// All files below, without following symbolic links.
    fn add_directory(&mut self, top: &Path, interrupted: &AtomicBool) {
        // Sorted, so that the same tree gives the same pages in the same order; a stack of its own, so that a deep tree
        // does not exhaust ours.
        let mut stack = vec![top.to_path_buf()];
        while let Some(directory) = stack.pop().filter(|_| !interrupted.load(Relaxed)) {
            let mut names = BTreeSet::new();
            match fs::read_dir(&directory) {
                Err(error) => self.fail(cannot_read(&directory, &error)),
                Ok(entries) => {
                    for entry in entries {
                        match entry {
                            Ok(entry) => drop(names.insert(entry.file_name())),
                            Err(error) => self.fail(cannot_read(&directory, &error)),
                        }
                    }
                }
            }
            let mut below = Vec::new();
            for name in names {
                let path = directory.join(name);
                match fs::symlink_metadata(&path) {
                    Ok(meta) if meta.is_dir() => below.push(path),
                    Ok(meta) if meta.is_file() => self.add_file(&path, meta.len(), CORE_MIN),
                    Ok(_) => self.skipped += 1,
                    Err(error) => self.fail(cannot_read(&path, &error)),
                }
            }
            stack.extend(below.into_iter().rev());
        }
    }

    fn add_file(&mut self, path: &Path, len: u64, core_min: u64) {
        if len == 0 {
            return;
        }
        let mut ranges = vec![(0, len)];
        if len >= core_min {
            let segments = open(path).map_err(CoreError::from).and_then(|file| core_file::segments(&file, len));
            match segments {
                Ok(Some(segments)) => ranges = segments,
                Ok(None) => {}
                Err(CoreError::Io(error)) => return self.fail(cannot_read(path, &error)),
                Err(error) => return self.fail(format!("{}: {error}", path.display())),
            }
        }
        let origin = self.origins.len();
        self.origins.push(Origin::File(path.into()));
        self.extents.extend(ranges.into_iter().map(|(offset, bytes)| Extent { origin, offset, bytes }));
    }

    fn fail(&mut self, sentence: impl Into<String>) {
        self.failures.push(sentence.into());
    }
}

/// Opens a file for reading. Does not hang on what has become a FIFO meanwhile.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The sentence for a file that cannot be read.
pub(super) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}
