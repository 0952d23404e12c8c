//! The measurement: every chunk through every codec, on all cores.

use std::time::Instant;

use parking_lot::Mutex;

use super::packing::{self, Packing};
use super::progress::Progress;
use super::reader::Reader;
use super::report::SameFilled;
use super::sample::RUN_PAGES;
use super::times::Times;
use super::{BenchError, PAGE};
use crate::store::{BLOCK_SIZE, Block, Codec, Engine, Form, Store, StoreConfig, fill_word};

/// Classes of the histogram.
pub(super) const CLASSES: usize = 64;
/// Blocks the real store can take, 256 MiB.
const CHECK_BLOCKS: u64 = 1 << 16;
/// The first chunks go to the real store too, and of the rest one in [`CHECK_EACH`]: the check costs little.
const CHECK_FIRST: u64 = 4;
const CHECK_EACH: u64 = 128;

/// Where in the store a chunk that is to be checked begins. It depends on the chunk alone, so that the footprint does not
/// depend on which thread comes first.
fn check_block(number: u64) -> Option<u64> {
    let chunk = match number {
        ..CHECK_FIRST => number,
        _ if number.is_multiple_of(CHECK_EACH) => CHECK_FIRST - 1 + number / CHECK_EACH,
        _ => return None,
    };
    let first = chunk.checked_mul(RUN_PAGES)?;
    (first + RUN_PAGES <= CHECK_BLOCKS).then_some(first)
}

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
        Ok(Some(Self { store, empty }))
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
    /// Wall-clock time of the bare codec calls, all threads together, nanoseconds. 0 if they were not asked for.
    pub(super) bare_ns: u64,
}

impl Findings {
    /// Nothing found.
    pub(super) fn new(configs: &[Config]) -> Self {
        Self {
            pages: 0,
            same_filled: SameFilled::default(),
            tallies: configs.iter().map(|config| Tally::new(config.block_size)).collect(),
            runs: Vec::new(),
            bare_ns: 0,
        }
    }

    /// Adds what another thread found.
    pub(super) fn merge(&mut self, other: Self) {
        self.pages += other.pages;
        self.same_filled.zero += other.same_filled.zero;
        self.same_filled.other += other.same_filled.other;
        self.tallies.iter_mut().zip(&other.tallies).for_each(|(mine, theirs)| mine.merge(theirs));
        self.runs.extend(other.runs);
        self.bare_ns += other.bare_ns;
    }
}

/// The instructions for all workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orders<'a> {
    /// What to measure.
    pub(super) configs: &'a [Config],
    /// One a config.
    pub(super) checks: &'a [Option<Check>],
    /// Index of the config that is planned for.
    pub(super) planned: usize,
    /// Whether the bare codecs run as well.
    pub(super) compare_raw: bool,
}

/// One thread: measures chunks until there are no more.
pub(super) struct Worker<'a> {
    orders: Orders<'a>,
    codecs: Vec<Bare>,
    /// Codecs of their own for the bare calls; none if they are not asked for.
    bare: Vec<Bare>,
    /// Payload lengths of the current chunk; None for same-filled blocks.
    lengths: Vec<Option<usize>>,
    found: Findings,
}

impl<'a> Worker<'a> {
    /// A worker that has measured nothing.
    pub(super) fn new(orders: Orders<'a>) -> Result<Self, BenchError> {
        let codecs = || orders.configs.iter().map(|config| Bare::new(*config)).collect::<Result<_, _>>();
        let bare = if orders.compare_raw { codecs()? } else { Vec::new() };
        let found = Findings::new(orders.configs);
        Ok(Self { orders, codecs: codecs()?, bare, lengths: Vec::new(), found })
    }

    /// Measures what the reader gives.
    pub(super) fn run(
        mut self,
        mut reader: Reader<'_, '_>,
        progress: &Mutex<Progress>,
    ) -> Result<Findings, BenchError> {
        while let Some((number, bytes)) = reader.next() {
            self.chunk(number, bytes)?;
            self.bare(bytes);
            progress.lock().add(bytes.len() as u64);
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
        let Orders { configs, checks, planned, .. } = self.orders;
        let first = check_block(number);
        for (at, config) in configs.iter().enumerate() {
            let footprint = self.blocks(at, *config, bytes)?;
            if at == planned {
                self.found.runs.push(Run { number, footprint });
            }
            if let (Some(check), Some(first)) = (&checks[at], first) {
                self.check(at, check, first, bytes)?;
            }
        }
        Ok(())
    }

    /// The blocks of a chunk through one codec. What a logical byte takes.
    fn blocks(&mut self, at: usize, config: Config, bytes: &[u8]) -> Result<f64, BenchError> {
        let (codec, tally) = (&mut self.codecs[at], &mut self.found.tallies[at]);
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
            let packed = codec.pack(block);
            let packed_at = Instant::now();
            tally.compress.add(nanoseconds(start, packed_at));
            let len = match packed {
                Some((form, len)) => {
                    let whole = codec.unpack(form, len).is_some();
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
    fn check(&mut self, at: usize, check: &Check, first: u64, bytes: &[u8]) -> Result<(), BenchError> {
        let blocks: &[Block] = bytes.as_chunks().0;
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

    /// The codec calls on a chunk just measured, and nothing else: no reading, no clock a block, no counting. Its bytes are
    /// in the cache by then.
    fn bare(&mut self, bytes: &[u8]) {
        let start = Instant::now();
        for codec in &mut self.bare {
            for block in bytes.chunks_exact(codec.out.len()) {
                if fill_word(block).is_none()
                    && let Some((form, len)) = codec.pack(block)
                {
                    std::hint::black_box(codec.unpack(form, len));
                }
            }
        }
        if !self.bare.is_empty() {
            self.found.bare_ns += nanoseconds(start, Instant::now());
        }
    }
}

/// The store's codec for one config, and room to decompress a block.
struct Bare {
    codec: Codec,
    engine: Engine,
    out: Vec<u8>,
}

impl Bare {
    fn new(Config { codec, block_size }: Config) -> Result<Self, BenchError> {
        let mut engine = Engine::new(block_size);
        engine.prepare(codec).ok_or(BenchError::NoCodec(codec))?;
        Ok(Self { codec, engine, out: vec![0; block_size] })
    }

    /// Compresses a block. What its payload is and how long; None if it is stored raw.
    fn pack(&mut self, block: &[u8]) -> Option<(Form, usize)> {
        let (form, payload) = self.engine.pack(self.codec, block);
        (form != Form::Raw).then_some((form, payload.len()))
    }

    /// Decompresses the last payload. None if that is not a whole block.
    fn unpack(&mut self, form: Form, len: usize) -> Option<()> {
        self.engine.unpack(form, len, &mut self.out)
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}
