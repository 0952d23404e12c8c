//! Hands out the chosen pages in chunks. Every worker reads its own, so that all cores read, one chunk each.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::container::{Container, HEAD, Place};
use super::input::{self, Extent, Input, Origin, Stream, cannot_read, open, sentence};
use super::process::{self, ProcessError};
use super::sample::RUN_PAGES;
use super::{PAGE, sample};

/// Bytes of a full chunk: 1 MiB, a whole number of blocks of every size.
pub(super) const CHUNK: usize = RUN_PAGES as usize * PAGE;
/// How often a stream that gives nothing is asked whether the run was interrupted.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

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
    /// Files, streams and processes that were read.
    pub(super) parts: u64,
    /// Bytes the streams gave, filled up to pages.
    pub(super) stream_bytes: u64,
    /// Whether a stream had more.
    pub(super) cut: bool,
    /// Parts that are compressed already, by how.
    pub(super) compressed: BTreeMap<Container, u64>,
    /// What could not be read, in the order of the input.
    pub(super) failures: Vec<String>,
}

/// The state that the readers of all workers share. The pages of a chunk do not depend on the worker that reads it.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    input: &'a Input,
    interrupted: &'a AtomicBool,
    cursor: Mutex<Cursor<'a>>,
    /// Held while a stream is read: one worker at a time. The others measure meanwhile.
    streams: Mutex<Streams<'a>>,
    /// One an origin, by its index; those of streams follow.
    failures: Mutex<BTreeMap<usize, String>>,
    /// What origins and streams that were read are, by the same index.
    containers: Mutex<BTreeMap<usize, Container>>,
}

impl<'a> Feed<'a> {
    /// All that was chosen is still to be read.
    pub(super) fn new(input: &'a Input, choice: Choice, interrupted: &'a AtomicBool) -> Self {
        Self {
            input,
            interrupted,
            cursor: Mutex::new(Cursor {
                input,
                runs: sample::runs(input.pages(), choice.pages, choice.seed).into(),
                extent: 0,
                base: 0,
                chunks: 0,
                origin: None,
                parts: 0,
            }),
            streams: Mutex::new(Streams {
                streams: &input.streams,
                at: 0,
                open: None,
                left: choice.stream_pages.map(|pages| pages.saturating_mul(PAGE as u64)),
                taken: Taken::default(),
            }),
            failures: Mutex::default(),
            containers: Mutex::default(),
        }
    }

    /// What was read, when all workers are done.
    pub(super) fn taken(self) -> Taken {
        let mut taken = self.streams.into_inner().taken;
        taken.parts += self.cursor.into_inner().parts;
        for container in self.containers.into_inner().into_values() {
            *taken.compressed.entry(container).or_default() += 1;
        }
        taken.failures = self.failures.into_inner().into_values().collect();
        taken
    }

    fn fail(&self, origin: usize, sentence: String) {
        self.failures.lock().entry(origin).or_insert(sentence);
    }
}

/// How far the extents are handed out.
#[derive(Debug)]
struct Cursor<'a> {
    input: &'a Input,
    /// What is left of the chosen pages.
    runs: VecDeque<Range<u64>>,
    /// The extent that the next page is in, or one before it.
    extent: usize,
    /// Its first page.
    base: u64,
    /// Chunks handed out, of streams as well.
    chunks: u64,
    /// Of the last piece.
    origin: Option<usize>,
    /// Origins of all pieces.
    parts: u64,
}

impl Cursor<'_> {
    /// The number of a new chunk.
    fn number(&mut self) -> u64 {
        self.chunks += 1;
        self.chunks - 1
    }

    /// Puts what the next chunk consists of into `pieces`. Its number; None after the last.
    fn next(&mut self, pieces: &mut Vec<Extent>) -> Option<u64> {
        pieces.clear();
        let mut room = RUN_PAGES;
        while let Some(run) = self.runs.front_mut().filter(|_| room > 0) {
            let Some(extent) = self.input.extents.get(self.extent) else { break };
            let end = self.base + extent.pages();
            if run.start >= end {
                self.base = end;
                self.extent += 1;
                continue;
            }
            let (from, page) = (run.start - self.base, PAGE as u64);
            let to = (run.end.min(end) - self.base).min(from + room);
            let bytes = (to * page).min(extent.bytes) - from * page;
            pieces.push(Extent { offset: extent.offset + from * page, bytes, ..*extent });
            self.parts += u64::from(self.origin.replace(extent.origin) != Some(extent.origin));
            room -= to - from;
            run.start = self.base + to;
            if run.is_empty() {
                self.runs.pop_front();
            }
        }
        if pieces.is_empty() { None } else { Some(self.number()) }
    }
}

/// A stream that is being read.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Whether it has given anything.
    given: bool,
    /// Its first bytes, until they are handed out.
    head: Vec<u8>,
    /// Whether the first bytes were looked at.
    known: bool,
}

/// How far the streams are read.
#[derive(Debug)]
struct Streams<'a> {
    streams: &'a [Stream],
    /// The current stream.
    at: usize,
    open: Option<Opened>,
    /// Bytes to measure yet; None for all.
    left: Option<u64>,
    /// Without what the extents gave.
    taken: Taken,
}

impl Streams<'_> {
    /// Fills a chunk as far as the streams go. The bytes, whole pages.
    fn fill(&mut self, chunk: &mut [u8], feed: &Feed<'_>) -> usize {
        let mut filled = 0;
        while filled < chunk.len() && !feed.interrupted.load(Relaxed) {
            let Some(stream) = self.streams.get(self.at) else { break };
            match self.read(stream, &mut chunk[filled..], feed) {
                Ok(Some(got @ 1..)) => filled += got,
                Ok(None) => {}
                ended => {
                    if let Err(sentence) = ended {
                        feed.fail(feed.input.origins.len() + self.at, sentence);
                    }
                    self.at += 1;
                    self.open = None;
                    filled = pad(chunk, filled);
                }
            }
        }
        filled = pad(chunk, filled);
        self.taken.stream_bytes += filled as u64;
        filled
    }

    /// Reads what is there: 0 at the end, None if nothing is there yet.
    fn read(&mut self, stream: &Stream, room: &mut [u8], feed: &Feed<'_>) -> Result<Option<usize>, String> {
        if self.left == Some(0) {
            self.taken.cut = true;
            return Ok(Some(0));
        }
        let fail = |error| match stream {
            Stream::Stdin => format!("cannot read standard input: {error}"),
            Stream::Fifo(path) => cannot_read(path, &error),
        };
        let opened = match &mut self.open {
            Some(opened) => opened,
            None => self.open.insert(Opened::new(stream).map_err(fail)?),
        };
        if !opened.known {
            if !opened.look().map_err(fail)? {
                return Ok(None);
            }
            if let Some(container) = Container::recognise(&opened.head) {
                if !feed.input.as_is {
                    return Err(container.refusal(Place::Stream(&stream.name())));
                }
                feed.containers.lock().insert(feed.input.origins.len() + self.at, container);
            }
        }
        let want = self.left.map_or(room.len(), |left| room.len().min(usize::try_from(left).unwrap_or(room.len())));
        let Some(got) = opened.read(&mut room[..want]).map_err(fail)? else { return Ok(None) };
        self.taken.parts += u64::from(got > 0 && !std::mem::replace(&mut opened.given, true));
        self.left = self.left.map(|left| left - got as u64);
        Ok(Some(got))
    }
}

impl Opened {
    fn new(stream: &Stream) -> io::Result<Self> {
        let file = match stream {
            Stream::Stdin => io::stdin().as_fd().try_clone_to_owned()?.into(),
            // Not blocking, so that waiting for its writer can be interrupted.
            Stream::Fifo(path) => open(path)?,
        };
        Ok(Self { file, given: false, head: Vec::new(), known: false })
    }

    /// Reads the first bytes, as far as they are there. Whether all of them are, or all that the stream has.
    fn look(&mut self) -> io::Result<bool> {
        let mut bytes = [0; HEAD];
        match poll_and_read(&mut self.file, &mut bytes[self.head.len()..])? {
            None => return Ok(false),
            Some(got) => {
                self.head.extend_from_slice(&bytes[self.head.len()..][..got]);
                self.known = got == 0 || self.head.len() == HEAD;
            }
        }
        Ok(self.known)
    }

    /// Reads the available data: first the bytes that were inspected.
    fn read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        if self.head.is_empty() {
            return poll_and_read(&mut self.file, room);
        }
        let got = room.len().min(self.head.len());
        room[..got].copy_from_slice(&self.head[..got]);
        self.head.drain(..got);
        Ok(Some(got))
    }
}

/// Reads what is there: 0 at the end, None if nothing came in a while.
fn poll_and_read(file: &mut File, room: &mut [u8]) -> io::Result<Option<usize>> {
    // A pipe may be silent for long, and a read of it would not end on a signal.
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    match file.read(room) {
        Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(None),
        got => got.map(Some),
    }
}

/// Reads the chunks of one worker.
#[derive(Debug)]
pub(super) struct Reader<'r, 'a> {
    feed: &'r Feed<'a>,
    /// The parts of the current chunk.
    pieces: Vec<Extent>,
    /// The origin read last.
    open: Option<(usize, File)>,
    /// A whole chunk long; from `filled` on it has data of earlier chunks.
    chunk: Vec<u8>,
    filled: usize,
}

impl<'r, 'a> Reader<'r, 'a> {
    /// A reader that has read nothing.
    pub(super) fn new(feed: &'r Feed<'a>) -> Self {
        Self { feed, pieces: Vec::new(), open: None, chunk: vec![0; CHUNK], filled: 0 }
    }

    /// The next chunk: its place in the input, from 0, and its pages. None at the end, and after an interrupt.
    ///
    /// It is full but for the last of the extents, the last of the streams, and where something could not be read.
    pub(super) fn next(&mut self) -> Option<(u64, &[u8])> {
        let number = loop {
            if self.feed.interrupted.load(Relaxed) {
                return None;
            }
            self.filled = 0;
            let extents = self.feed.cursor.lock().next(&mut self.pieces);
            let number = match extents {
                Some(number) => {
                    self.read_pieces();
                    number
                }
                None => {
                    let mut streams = self.feed.streams.lock();
                    self.filled = streams.fill(&mut self.chunk, self.feed);
                    if self.filled == 0 {
                        return None;
                    }
                    self.feed.cursor.lock().number()
                }
            };
            if self.filled > 0 {
                break number;
            }
        };
        Some((number, &self.chunk[..self.filled]))
    }

    /// Reads the pieces. One that fails is left out, and its origin is given up.
    fn read_pieces(&mut self) {
        let feed = self.feed;
        for at in 0..self.pieces.len() {
            let piece = self.pieces[at];
            if feed.interrupted.load(Relaxed) {
                break;
            }
            if feed.failures.lock().contains_key(&piece.origin) {
                continue;
            }
            let outcome = self.read_piece(&feed.input.origins[piece.origin], piece);
            self.filled = pad(&mut self.chunk, self.filled);
            if let Err(sentence) = outcome {
                feed.fail(piece.origin, sentence);
            }
        }
    }

    /// Appends consecutive bytes of an origin to the chunk.
    fn read_piece(&mut self, origin: &Origin, piece: Extent) -> Result<(), String> {
        let file = match &mut self.open {
            Some((at, file)) if *at == piece.origin => file,
            open => {
                // Closes the one before first.
                *open = None;
                let file = match origin {
                    Origin::File(path) => {
                        let file = input::open(path).map_err(|error| cannot_read(path, &error))?;
                        if let Some(container) = input::container(&file) {
                            self.feed.containers.lock().insert(piece.origin, container);
                        }
                        file
                    }
                    Origin::Process(pid) => process::memory(*pid).map_err(|error| sentence(&error))?,
                };
                &mut open.insert((piece.origin, file)).1
            }
        };
        let mut done = 0;
        while done < piece.bytes {
            let want = usize::try_from(piece.bytes - done).unwrap_or(usize::MAX).min(CHUNK - self.filled);
            let got = file.read_at(&mut self.chunk[self.filled..][..want], piece.offset + done);
            self.filled += *got.as_ref().unwrap_or(&0);
            match (got, origin) {
                (Ok(got @ 1..), _) => done += got as u64,
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Ok(_), Origin::File(path)) => {
                    return Err(format!("{} became shorter while it was read", path.display()));
                }
                (Err(error), Origin::File(path)) => return Err(cannot_read(path, &error)),
                // A page that has been unmapped since; the next may be there.
                (Err(error), Origin::Process(_)) if error.raw_os_error() == Some(libc::EIO) => {
                    self.filled = pad(&mut self.chunk, self.filled);
                    done = (done / PAGE as u64 + 1) * PAGE as u64;
                }
                (Ok(_), Origin::Process(pid)) => return Err(format!("process {pid} ended while it was read")),
                (Err(error), Origin::Process(pid)) => return Err(sentence(&ProcessError::of(*pid, error))),
            }
        }
        Ok(())
    }
}

/// Fills the last page up with zeros, as the page cache does at the end of a file. The end, then.
fn pad(chunk: &mut [u8], filled: usize) -> usize {
    let end = filled.next_multiple_of(PAGE);
    chunk[filled..end].fill(0);
    end
}
