//! Where the pages are: inputs resolved to extents of pages, before any of them is read.

use std::error::Error;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::container::{Container, HEAD, Place};
use super::core_file::{self, CoreError};
use super::walk::walk;
use super::{PAGE, holes, process};

/// What a user names to be measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named<'a> {
    /// The resident anonymous pages of a process.
    Process(u32),
    /// Standard input.
    Stdin,
    /// Files, directories, FIFOs, block devices; `-` is standard input.
    Paths(&'a [PathBuf]),
}

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

impl Stream {
    /// What to call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".into(),
            Self::Fifo(path) => path.display().to_string(),
        }
    }
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
    /// Bytes of files that were never written, in no extent.
    pub(super) holes: u64,
    /// Whether files and streams are read as the bytes they are.
    pub(super) as_is: bool,
    /// What could not be read, a sentence each.
    pub(super) failures: Vec<String>,
}

impl Input {
    /// Resolves the named inputs, on so many threads. An interrupt ends it early. `as_is`: see [`Input::as_is`].
    pub(super) fn find(named: Named<'_>, as_is: bool, threads: usize, interrupted: &AtomicBool) -> Self {
        let mut input = Self { as_is, ..Self::default() };
        let paths = match named {
            Named::Process(pid) => {
                input.add_process(pid);
                return input;
            }
            Named::Stdin => &[PathBuf::from("-")],
            Named::Paths(paths) => paths,
        };
        let names =
            paths.iter().map(|path| if is_dash(path) { "standard input".into() } else { path.display().to_string() });
        input.what = names.collect::<Vec<_>>().join(", ");
        for path in paths {
            input.add_named(path, threads, interrupted);
        }
        input
    }

    /// Pages in the extents.
    pub(super) fn pages(&self) -> u64 {
        self.extents.iter().map(Extent::pages).sum()
    }

    fn add_process(&mut self, pid: u32) {
        self.what = format!("process {pid}");
        match process::resident(pid) {
            Ok(ranges) => {
                self.origins.push(Origin::Process(pid));
                self.extents.extend(ranges.into_iter().map(|(offset, bytes)| Extent { origin: 0, offset, bytes }));
            }
            Err(error) => self.fail(sentence(&error)),
        }
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
            self.add_file(path, meta.len(), is_sparse(&meta));
        } else if kind.is_fifo() {
            self.streams.push(Stream::Fifo(path.into()));
        } else if kind.is_block_device() {
            match File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))) {
                Ok(len) => self.add_file(path, len, false),
                Err(error) => self.fail(cannot_read(path, &error)),
            }
        } else {
            self.fail(format!("{} is neither file, directory, FIFO nor block device", path.display()));
        }
    }

    /// All files below, without following symbolic links.
    fn add_directory(&mut self, top: &Path, threads: usize, interrupted: &AtomicBool) {
        for listing in walk(top, threads, self.as_is, interrupted) {
            for (path, contents) in listing.files {
                self.add_contents(path, contents);
            }
            self.skipped += listing.skipped;
            self.failures.extend(listing.failures);
        }
    }

    fn add_file(&mut self, path: &Path, len: u64, sparse: bool) {
        match contents(path, len, Look { named: true, as_is: self.as_is, sparse }) {
            Ok(contents) => self.add_contents(path.into(), contents),
            Err(sentence) => self.fail(sentence),
        }
    }

    fn add_contents(&mut self, path: PathBuf, contents: Contents) {
        self.holes += contents.holes;
        if contents.ranges.is_empty() {
            return;
        }
        let origin = self.origins.len();
        self.origins.push(Origin::File(path));
        self.extents.extend(contents.ranges.into_iter().map(|(offset, bytes)| Extent { origin, offset, bytes }));
    }

    fn fail(&mut self, sentence: impl Into<String>) {
        self.failures.push(sentence.into());
    }
}

/// In directories, files from this size on are looked into for a core dump. A smaller one is read as it is, which is
/// nearly the same pages.
const CORE_MIN: u64 = 1 << 20;

/// What is to be read of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Offset and length of each part.
    pub(super) ranges: Vec<(u64, u64)>,
    /// Bytes left out because they were never written.
    pub(super) holes: u64,
}

/// How to look at a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether the command line names it: then it is what its user thinks it is, or refused.
    pub(super) named: bool,
    /// Whether its bytes are to be measured whatever they are.
    pub(super) as_is: bool,
    /// Whether it may have holes.
    pub(super) sparse: bool,
}

/// What is to be read of a file of `len` bytes: all, or the memory in a core dump; without the holes.
pub(super) fn contents(path: &Path, len: u64, look: Look) -> Result<Contents, String> {
    if len == 0 {
        return Ok(Contents::default());
    }
    let whole = vec![(0, len)];
    if look.as_is || !(look.named || look.sparse || len >= CORE_MIN) {
        return Ok(Contents { ranges: whole, holes: 0 });
    }
    let file = open(path).map_err(|error| cannot_read(path, &error))?;
    if look.named
        && let Some(container) = container(&file)
    {
        return Err(container.refusal(Place::File(path)));
    }
    let ranges = match core_file::segments(&file, len) {
        Ok(segments) => segments.unwrap_or(whole),
        Err(CoreError::Io(error)) => return Err(cannot_read(path, &error)),
        Err(error) => return Err(format!("{}: {}", path.display(), sentence(&error))),
    };
    if !look.sparse {
        return Ok(Contents { ranges, holes: 0 });
    }
    let bytes = |ranges: &[(u64, u64)]| ranges.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let data: Vec<_> = ranges.iter().flat_map(|(start, len)| holes::data(&file, *start, *len)).collect();
    Ok(Contents { holes: bytes(&ranges) - bytes(&data), ranges: data })
}

/// What a file is by its first bytes, if these can be read.
pub(super) fn container(file: &File) -> Option<Container> {
    let mut head = [0; HEAD];
    let got = file.read_at(&mut head, 0).ok()?;
    Container::recognise(&head[..got])
}

/// Whether a file takes less room than it is long.
pub(super) fn is_sparse(meta: &Metadata) -> bool {
    meta.is_file() && meta.blocks().saturating_mul(512) < meta.len()
}

/// Opens a file for reading. Does not hang on what has become a FIFO meanwhile.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The sentence for a file that cannot be read.
pub(super) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// An error and what caused it, in one line.
pub(super) fn sentence(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}
