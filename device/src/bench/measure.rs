//! The measurement: every chunk through every codec, on all cores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use rustix::time::{ClockId, clock_gettime};

use super::codec::{Engine, fill_word};
use super::packing::{self, Packing};
use super::reader::Chunk;
use super::report::SameFilled;
use super::times::Times;
use super::{BenchError, PAGE};
use crate::store::{BLOCK_SIZE, Block, Codec, Store, StoreConfig};

/// Classes of the histogram.
pub(super) const CLASSES: usize = 64;
/// Blocks the real store can take, 256 MiB.
const CHECK_BLOCKS: u64 = 1 << 16;
/// The first chunks go to the real store too, and of the rest one in [`CHECK_EACH`]: the check costs little.
const CHECK_FIRST: u64 = 4;
const CHECK_EACH: u64 = 128;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// The codec.
    pub(super) codec: Codec,
    /// Bytes in a block.
    pub(super) block_size: usize,
}

/// The real store that some of the blocks are written to as well.
#[derive(Debug)]
pub(super) struct Check {
    store: Store,
    next: AtomicU64,
    empty: u64,
}

impl Check {
    /// An empty store, if the store has blocks of this size.
    pub(super) fn new(config: Config) -> Result<Option<Self>, BenchError> {
        if config.block_size != BLOCK_SIZE {
            return Ok(None);
        }
        // Room for the last, partly filled frame of every class as well.
        let blocks = CHECK_BLOCKS + 1024;
        let physical = blocks * BLOCK_SIZE as u64;
        let store = Store::new(&StoreConfig { blocks, physical, codec: config.codec })?;
        let empty = store.usage().metadata;
        Ok(Some(Self { store, next: AtomicU64::new(0), empty }))
    }

    /// Bytes the store has taken.
    pub(super) fn bytes(&self) -> u64 {
        let usage = self.store.usage();
        usage.used + usage.metadata.saturating_sub(self.empty)
    }
}

/// What one thread, or all together, found for one [`Config`].
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) blocks: u64,
    pub(super) same_filled: u64,
    pub(super) raw: u64,
    pub(super) data_bytes: u64,
    pub(super) packing: Packing,
    pub(super) histogram: Vec<u64>,
    pub(super) compress: Times,
    pub(super) decompress: Times,
    /// Blocks that were also written to the real store.
    pub(super) checked: u64,
    /// The same by size class.
    pub(super) checked_packing: Packing,
}

impl Tally {
    fn new(block_size: usize) -> Self {
        Self {
            blocks: 0,
            same_filled: 0,
            raw: 0,
            data_bytes: 0,
            packing: Packing::new(block_size),
            histogram: vec![0; CLASSES],
            compress: Times::new(),
            decompress: Times::new(),
            checked: 0,
            checked_packing: Packing::new(block_size),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.same_filled += other.same_filled;
        self.raw += other.raw;
        self.data_bytes += other.data_bytes;
        self.packing.merge(&other.packing);
        self.histogram.iter_mut().zip(&other.histogram).for_each(|(mine, theirs)| *mine += theirs);
        self.compress.merge(&other.compress);
        self.decompress.merge(&other.decompress);
        self.checked += other.checked;
        self.checked_packing.merge(&other.checked_packing);
    }
}

/// The footprint of one chunk, for the planner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Place in the input.
    pub(super) number: u64,
    /// Bytes it takes for each logical byte, without frame rounding.
    pub(super) footprint: f64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) pages: u64,
    pub(super) same_filled: SameFilled,
    /// One a config.
    pub(super) tallies: Vec<Tally>,
    /// Of the config that is planned for.
    pub(super) runs: Vec<Run>,
    /// Time that threads waited for input, all together, nanoseconds.
    pub(super) waited_ns: u64,
    /// Chunks kept for the raw loop.
    pub(super) kept: Vec<Vec<u8>>,
    /// CPU time it took to keep them, seconds: no part of the measurement.
    pub(super) keeping_seconds: f64,
}

impl Findings {
    /// Nothing found.
    pub(super) fn new(configs: &[Config]) -> Self {
        Self {
            pages: 0,
            same_filled: SameFilled::default(),
            tallies: configs.iter().map(|config| Tally::new(config.block_size)).collect(),
            runs: Vec::new(),
            waited_ns: 0,
            kept: Vec::new(),
            keeping_seconds: 0.0,
        }
    }

    /// Adds what another thread found.
    pub(super) fn merge(&mut self, other: Self) {
        self.pages += other.pages;
        self.same_filled.zero += other.same_filled.zero;
        self.same_filled.other += other.same_filled.other;
        self.tallies.iter_mut().zip(&other.tallies).for_each(|(mine, theirs)| mine.merge(theirs));
        self.runs.extend(other.runs);
        self.waited_ns += other.waited_ns;
        self.kept.extend(other.kept);
        self.keeping_seconds += other.keeping_seconds;
    }
}

/// Chunks that threads may keep for the raw loop.
pub(super) type Keep = AtomicU64;

/// One thread: measures chunks until there are no more.
pub(super) struct Worker<'a> {
    configs: &'a [Config],
    checks: &'a [Option<Check>],
    /// Index of the config that is planned for.
    planned: usize,
    keep: &'a Keep,
    engines: Vec<Engine>,
    /// Payload lengths of the chunk at hand; None for same-filled blocks.
    lengths: Vec<Option<usize>>,
    found: Findings,
}

impl<'a> Worker<'a> {
    /// A worker that has measured nothing.
    pub(super) fn new(
        configs: &'a [Config],
        checks: &'a [Option<Check>],
        planned: usize,
        keep: &'a Keep,
    ) -> Result<Self, BenchError> {
        let engines = configs.iter().map(|config| engine(*config)).collect::<Result<_, _>>()?;
        Ok(Self { configs, checks, planned, keep, engines, lengths: Vec::new(), found: Findings::new(configs) })
    }

    /// Measures what comes in `full`; returns the buffers to `empty`.
    pub(super) fn run(mut self, full: &Receiver<Chunk>, empty: &Sender<Vec<u8>>) -> Result<Findings, BenchError> {
        loop {
            let start = Instant::now();
            let next = full.recv();
            self.found.waited_ns += nanoseconds(start, Instant::now());
            // Closed: the reader is done.
            let Ok(Chunk { number, bytes }) = next else { break };
            self.chunk(number, &bytes)?;
            if self.keep.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                let start = cpu_seconds(ClockId::ThreadCPUTime);
                self.found.kept.push(bytes.clone());
                self.found.keeping_seconds += cpu_seconds(ClockId::ThreadCPUTime) - start;
            }
            // If nobody waits for it, it is dropped.
            let _ = empty.try_send(bytes);
        }
        Ok(self.found)
    }

    fn chunk(&mut self, number: u64, bytes: &[u8]) -> Result<(), BenchError> {
        for page in bytes.chunks(PAGE) {
            self.found.pages += 1;
            match fill_word(page) {
                Some(0) => self.found.same_filled.zero += 1,
                Some(_) => self.found.same_filled.other += 1,
                None => {}
            }
        }
        let checked = number < CHECK_FIRST || number.is_multiple_of(CHECK_EACH);
        for (at, config) in self.configs.iter().enumerate() {
            let footprint = self.blocks(at, *config, bytes)?;
            if at == self.planned {
                self.found.runs.push(Run { number, footprint });
            }
            if let Some(check) = self.checks[at].as_ref().filter(|_| checked) {
                self.check(at, check, bytes)?;
            }
        }
        Ok(())
    }

    /// The blocks of a chunk through one codec. What a logical byte takes.
    fn blocks(&mut self, at: usize, config: Config, bytes: &[u8]) -> Result<f64, BenchError> {
        let (engine, tally) = (&mut self.engines[at], &mut self.found.tallies[at]);
        let (size, class) = (config.block_size, config.block_size / CLASSES);
        let (mut blocks, mut footprint) = (0, 0);
        let mut filled_up = Vec::new();
        self.lengths.clear();
        for block in bytes.chunks(size) {
            // The last block of the input may be short: filled up with zeros.
            let block = if block.len() == size {
                block
            } else {
                filled_up.extend_from_slice(block);
                filled_up.resize(size, 0);
                &filled_up
            };
            blocks += 1;
            if fill_word(block).is_some() {
                tally.same_filled += 1;
                tally.packing.add_same_filled();
                footprint += packing::share(None);
                self.lengths.push(None);
                continue;
            }
            let start = Instant::now();
            let packed = engine.pack(block);
            let packed_at = Instant::now();
            tally.compress.add(nanoseconds(start, packed_at));
            let len = match packed {
                Some(len) => {
                    let whole = engine.unpack(len).is_some();
                    tally.decompress.add(nanoseconds(packed_at, Instant::now()));
                    if !whole {
                        return Err(BenchError::Corrupt(config.codec));
                    }
                    len
                }
                None => {
                    tally.raw += 1;
                    size
                }
            };
            tally.data_bytes += len as u64;
            tally.packing.add(len);
            tally.histogram[(len - 1) / class] += 1;
            footprint += packing::share(Some(len));
            self.lengths.push(Some(len));
        }
        tally.blocks += blocks;
        Ok(footprint as f64 / (blocks * size as u64).max(1) as f64)
    }

    /// The blocks just measured, into the real store.
    fn check(&mut self, at: usize, check: &Check, bytes: &[u8]) -> Result<(), BenchError> {
        let blocks: &[Block] = bytes.as_chunks().0;
        let first = check.next.fetch_add(blocks.len() as u64, Relaxed);
        if first + blocks.len() as u64 > CHECK_BLOCKS {
            return Ok(());
        }
        let tally = &mut self.found.tallies[at];
        for ((number, block), len) in (first..).zip(blocks).zip(&self.lengths) {
            check.store.write(number, block)?;
            tally.checked += 1;
            match len {
                Some(len) => tally.checked_packing.add(*len),
                None => tally.checked_packing.add_same_filled(),
            }
        }
        Ok(())
    }
}

/// The bare codecs over the same chunks, nothing else: what the bench could reach at best on these threads.
pub(super) fn raw_loop(configs: &[Config], chunks: &[Vec<u8>], threads: usize) -> Result<(), BenchError> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut engines = configs.iter().map(|config| engine(*config)).collect::<Result<Vec<_>, _>>()?;
                    while let Some(chunk) = chunks.get(next.fetch_add(1, Relaxed) as usize) {
                        for (config, engine) in configs.iter().zip(&mut engines) {
                            for block in chunk.chunks_exact(config.block_size) {
                                if fill_word(block).is_none()
                                    && let Some(len) = engine.pack(block)
                                {
                                    std::hint::black_box(engine.unpack(len));
                                }
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(BenchError::Thread)))
    })
}

fn engine(config: Config) -> Result<Engine, BenchError> {
    Engine::new(config.codec, config.block_size).ok_or(BenchError::NoCodec(config.codec))
}

/// CPU time of this thread, or of all threads of the process.
pub(super) fn cpu_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}
