//! Where the pages are: inputs resolved to extents of pages, before any of them is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::core_file::{self, CoreError};
use super::walk::walk;
use super::{BenchArgs, PAGE, process};

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
    /// Resolves what the command line names, on so many threads. An interrupt ends it early.
    pub(super) fn find(args: &BenchArgs, threads: usize, interrupted: &AtomicBool) -> Self {
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
            input.add_named(path, threads, interrupted);
        }
        input
    }

    /// Pages in the extents.
    pub(super) fn pages(&self) -> u64 {
        self.extents.iter().map(Extent::pages).sum()
    }

    fn add_named(&mut self, path: &Path, threads: usize, interrupted: &AtomicBool) {
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
            self.add_directory(path, threads, interrupted);
        } else if kind.is_file() {
            self.add_file(path, meta.len());
        } else if kind.is_fifo() {
            self.streams.push(Stream::Fifo(path.into()));
        } else if kind.is_block_device() {
            match File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))) {
                Ok(len) => self.add_file(path, len),
                Err(error) => self.fail(cannot_read(path, &error)),
            }
        } else {
            self.fail(format!("{} is neither file, directory, FIFO nor block device", path.display()));
        }
    }

    /// All files below, without following symbolic links.
    fn add_directory(&mut self, top: &Path, threads: usize, interrupted: &AtomicBool) {
        for listing in walk(top, threads, interrupted) {
            for (path, ranges) in listing.files {
                self.add_ranges(path, ranges);
            }
            self.skipped += listing.skipped;
            self.failures.extend(listing.failures);
        }
    }

    fn add_file(&mut self, path: &Path, len: u64) {
        match ranges(path, len, 0) {
            Ok(ranges) => self.add_ranges(path.into(), ranges),
            Err(sentence) => self.fail(sentence),
        }
    }

    fn add_ranges(&mut self, path: PathBuf, ranges: Vec<(u64, u64)>) {
        let origin = self.origins.len();
        self.origins.push(Origin::File(path));
        self.extents.extend(ranges.into_iter().map(|(offset, bytes)| Extent { origin, offset, bytes }));
    }

    fn fail(&mut self, sentence: impl Into<String>) {
        self.failures.push(sentence.into());
    }
}

/// Offset and length of what is to be read of a file of `len` bytes: all, or the memory in a core dump. Only files of
/// at least `core_min` bytes are looked into.
pub(super) fn ranges(path: &Path, len: u64, core_min: u64) -> Result<Vec<(u64, u64)>, String> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if len < core_min {
        return Ok(vec![(0, len)]);
    }
    match open(path).map_err(CoreError::from).and_then(|file| core_file::segments(&file, len)) {
        Ok(segments) => Ok(segments.unwrap_or_else(|| vec![(0, len)])),
        Err(CoreError::Io(error)) => Err(cannot_read(path, &error)),
        Err(error) => Err(format!("{}: {error}", path.display())),
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
