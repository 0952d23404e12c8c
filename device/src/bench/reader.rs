//! Reads the chosen pages in order and hands them out in chunks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::input::{Extent, Input, Origin, Stream, cannot_read, open};
use super::process::{self, ProcessError};
use super::progress::Progress;
use super::sample::RUN_PAGES;
use super::{PAGE, sample};

/// Bytes of a full chunk: 1 MiB, a whole number of blocks of every size.
pub(super) const CHUNK: usize = RUN_PAGES as usize * PAGE;
/// How often a stream that gives nothing is asked whether the run was interrupted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Consecutive pages.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Its place in the input, from 0.
    pub(super) number: u64,
    /// The pages; a full chunk but for the last.
    pub(super) bytes: Vec<u8>,
}

/// What to read of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Pages to measure of the extents.
    pub(super) pages: u64,
    /// Pages to measure of the streams together; None for all.
    pub(super) stream_pages: Option<u64>,
    /// Seed of the sample.
    pub(super) seed: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Extents and streams that gave pages.
    pub(super) parts: u64,
    /// Bytes the streams gave, filled up to pages.
    pub(super) stream_bytes: u64,
    /// Whether a stream had more.
    pub(super) cut: bool,
    /// What could not be read.
    pub(super) failures: Vec<String>,
}

/// Why reading stops altogether.
struct Stop;

/// The reader.
pub(super) struct Reader<'a> {
    full: Sender<Chunk>,
    empty: Receiver<Vec<u8>>,
    interrupted: &'a AtomicBool,
    progress: &'a mut Progress,
    /// A whole chunk long; what is in it from `filled` on is left from earlier.
    chunk: Vec<u8>,
    filled: usize,
    number: u64,
    taken: Taken,
}

impl<'a> Reader<'a> {
    /// A reader that fills buffers from `empty` where there are any.
    pub(super) fn new(
        full: Sender<Chunk>,
        empty: Receiver<Vec<u8>>,
        interrupted: &'a AtomicBool,
        progress: &'a mut Progress,
    ) -> Self {
        let chunk = vec![0; CHUNK];
        Self { full, empty, interrupted, progress, chunk, filled: 0, number: 0, taken: Taken::default() }
    }

    /// Reads until the end or an interrupt.
    pub(super) fn run(mut self, input: &Input, choice: Choice) -> Taken {
        let ended = self.extents(input, choice).and_then(|()| self.streams(&input.streams, choice.stream_pages));
        // After an interrupt, too: what was read is worth measuring.
        if ended.is_ok() || self.interrupted.load(Relaxed) {
            let _ = self.send();
        }
        self.taken
    }

    fn extents(&mut self, input: &Input, choice: Choice) -> Result<(), Stop> {
        let mut runs = sample::runs(input.pages(), choice.pages, choice.seed).into_iter().peekable();
        let mut current: Option<(usize, Option<File>)> = None;
        let mut base = 0;
        for extent in &input.extents {
            let end = base + extent.pages();
            while let Some(run) = runs.peek().filter(|run| run.start < end) {
                let (from, to) = (run.start.max(base) - base, run.end.min(end) - base);
                if current.as_ref().is_none_or(|(origin, _)| *origin != extent.origin) {
                    current = Some((extent.origin, self.open(&input.origins[extent.origin])));
                    self.taken.parts += 1;
                }
                if let Some((_, file @ Some(_))) = &mut current {
                    let page = PAGE as u64;
                    let bytes = (to * page).min(extent.bytes) - from * page;
                    let piece = Extent { offset: extent.offset + from * page, bytes, ..*extent };
                    self.piece(&input.origins[extent.origin], file, piece)?;
                }
                if run.end > end {
                    break;
                }
                runs.next();
            }
            base = end;
        }
        Ok(())
    }

    fn open(&mut self, origin: &Origin) -> Option<File> {
        let file = match origin {
            Origin::File(path) => open(path).map_err(|error| cannot_read(path, &error)),
            Origin::Process(pid) => process::memory(*pid).map_err(|error| error.to_string()),
        };
        file.map_err(|sentence| self.taken.failures.push(sentence)).ok()
    }

    /// Reads consecutive bytes. An origin that fails is given up: `file` becomes None.
    fn piece(&mut self, origin: &Origin, file: &mut Option<File>, piece: Extent) -> Result<(), Stop> {
        let mut done = 0;
        while done < piece.bytes {
            let Some(open) = &*file else { return Ok(()) };
            let room = self.room()?;
            let want = room.min(usize::try_from(piece.bytes - done).unwrap_or(usize::MAX));
            let got = open.read_at(&mut self.chunk[self.filled..][..want], piece.offset + done);
            self.filled += *got.as_ref().unwrap_or(&0);
            match (got, origin) {
                (Ok(got @ 1..), _) => done += got as u64,
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Ok(_), Origin::File(path)) => {
                    self.taken.failures.push(format!("{} became shorter while it was read", path.display()));
                    *file = None;
                }
                (Err(error), Origin::File(path)) => {
                    self.taken.failures.push(cannot_read(path, &error));
                    *file = None;
                }
                // A page that has been unmapped since; the next may be there.
                (Err(error), Origin::Process(_)) if error.raw_os_error() == Some(libc::EIO) => {
                    self.pad();
                    done = (done / PAGE as u64 + 1) * PAGE as u64;
                }
                (Ok(_), Origin::Process(pid)) => {
                    self.taken.failures.push(format!("process {pid} ended while it was read"));
                    *file = None;
                }
                (Err(error), Origin::Process(pid)) => {
                    self.taken.failures.push(ProcessError::of(*pid, error).to_string());
                    *file = None;
                }
            }
        }
        self.pad();
        Ok(())
    }

    fn streams(&mut self, streams: &[Stream], limit: Option<u64>) -> Result<(), Stop> {
        let mut left = limit.map(|pages| pages.saturating_mul(PAGE as u64));
        for stream in streams {
            if left == Some(0) {
                self.taken.cut = true;
                break;
            }
            let before = self.taken.stream_bytes;
            let outcome = match stream {
                Stream::Stdin => self.stream(io::stdin().lock(), &mut left),
                // Not blocking, so that waiting for its writer can be interrupted.
                Stream::Fifo(path) => match open(path) {
                    Ok(file) => self.stream(file, &mut left),
                    Err(error) => Ok(Err(error)),
                },
            };
            if let Err(error) = outcome? {
                self.taken.failures.push(match stream {
                    Stream::Stdin => format!("cannot read standard input: {error}"),
                    Stream::Fifo(path) => cannot_read(path, &error),
                });
            }
            self.taken.parts += u64::from(self.taken.stream_bytes > before);
        }
        Ok(())
    }

    fn stream(&mut self, mut stream: impl Read + AsFd, left: &mut Option<u64>) -> Result<io::Result<()>, Stop> {
        let outcome = loop {
            let room = self.room()?;
            let want = left.map_or(room, |left| room.min(usize::try_from(left).unwrap_or(room)));
            if want == 0 {
                self.taken.cut = true;
                break Ok(());
            }
            // A pipe may be silent for long, and a read of it would not end on a signal.
            match poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&PATIENCE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
            let got = stream.read(&mut self.chunk[self.filled..][..want]);
            self.filled += *got.as_ref().unwrap_or(&0);
            match got {
                Ok(0) => break Ok(()),
                Ok(got) => {
                    self.taken.stream_bytes += got as u64;
                    if let Some(left) = left {
                        *left -= got as u64;
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => break Err(error),
            }
        };
        self.pad();
        self.taken.stream_bytes = self.taken.stream_bytes.next_multiple_of(PAGE as u64);
        Ok(outcome)
    }

    /// Bytes that the chunk can still take, at least 1; sends it first if it is full.
    fn room(&mut self) -> Result<usize, Stop> {
        if self.filled == CHUNK {
            self.send()?;
        }
        if self.interrupted.load(Relaxed) { Err(Stop) } else { Ok(CHUNK - self.filled) }
    }

    /// Fills the last page up with zeros, as the page cache does at the end of a file.
    fn pad(&mut self) {
        let end = self.filled.next_multiple_of(PAGE);
        self.chunk[self.filled..end].fill(0);
        self.filled = end;
    }

    fn send(&mut self) -> Result<(), Stop> {
        self.pad();
        if self.filled == 0 {
            return Ok(());
        }
        let mut next = self.empty.try_recv().unwrap_or_default();
        next.resize(CHUNK, 0);
        let mut bytes = std::mem::replace(&mut self.chunk, next);
        bytes.truncate(self.filled);
        self.filled = 0;
        self.progress.add(bytes.len() as u64);
        let chunk = Chunk { number: self.number, bytes };
        self.number += 1;
        self.full.send(chunk).map_err(|_| Stop)
    }
}
