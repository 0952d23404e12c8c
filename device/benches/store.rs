//! What the store costs over the codec it calls, on the same blocks in the same run. Read the ratios, not the times:
//! `store/write` against `store/raw_compress`, `store/read` against `store/raw_decompress`, `fill/store` against
//! `fill/memcpy`; `turns` and `medium` print their ratios themselves.
//!
//! `BENCH_IMAGE=FILE` takes the blocks from a raw memory image or any other large file instead of making them up.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cxl_cram_device::{
    hdm::media::{Media, MediaConfig, Threshold, Watermarks},
    store::{BLOCK_SIZE, Block, Codec, Store, StoreConfig},
};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat};

/// Blocks in the working set: 64 MiB, past every cache, for store and reference alike.
const BLOCKS: usize = 16_384;
const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd(1)];

/// The blocks to store.
fn blocks() -> Vec<Block> {
    if let Some(path) = std::env::var_os("BENCH_IMAGE") {
        let image = std::fs::read(&path).expect("BENCH_IMAGE is readable");
        let found: Vec<Block> =
            image.as_chunks().0.iter().copied().filter(|block| !is_filled(block)).take(BLOCKS).collect();
        assert_eq!(found.len(), BLOCKS, "BENCH_IMAGE has too few blocks that are not same-filled");
        return found;
    }
    let mut next = words();
    // Structures of 64 bytes: a pointer, a counter, a flag word, some noise, the rest alike. Shrinks to about a half.
    let mut make = || {
        let mut block = [0; BLOCK_SIZE];
        for (at, record) in block.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            record[..8].copy_from_slice(&(0xffff_8880_0000_0000 | next() >> 36 << 6).to_le_bytes());
            record[8..16].copy_from_slice(&(at as u64 * 3).to_le_bytes());
            record[16..20].copy_from_slice(&(next() as u32 & 0x0101_0101).to_le_bytes());
            for word in record[24..24 + 8 * (next() % 5) as usize].as_chunks_mut().0 {
                *word = next().to_le_bytes();
            }
        }
        block
    };
    (0..BLOCKS).map(|_| make()).collect()
}

/// Noise: xorshift64.
fn words() -> impl FnMut() -> u64 {
    let mut state = 0x5eed_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn is_filled(block: &Block) -> bool {
    block[8..] == block[..BLOCK_SIZE - 8]
}

fn store(codec: Codec) -> Store {
    let physical = (BLOCKS * BLOCK_SIZE) as u64;
    Store::new(&StoreConfig { blocks: BLOCKS as u64, physical, codec }).expect("a small store")
}

/// The codec as it is: contexts made once, no store around it.
enum Raw {
    Lz4(CompressTable),
    Zstd(CCtx<'static>, DCtx<'static>),
}

impl Raw {
    fn new(codec: Codec) -> Self {
        match codec {
            Codec::Lz4 | Codec::Adaptive(_) => Self::Lz4(CompressTable::small()),
            Codec::Zstd(level) => {
                let (mut pack, mut unpack) = (CCtx::create(), DCtx::create());
                for parameter in [
                    CParameter::CompressionLevel(level),
                    CParameter::Format(FrameFormat::Magicless),
                    CParameter::ContentSizeFlag(false),
                ] {
                    pack.set_parameter(parameter).expect("zstd knows it");
                }
                unpack.set_parameter(DParameter::Format(FrameFormat::Magicless)).expect("zstd knows it");
                Self::Zstd(pack, unpack)
            }
        }
    }

    fn compress(&mut self, block: &Block, out: &mut [u8]) -> usize {
        match self {
            Self::Lz4(table) => compress_into_with_table(block, out, table).expect("out is large enough"),
            Self::Zstd(context, _) => context.compress2(out, block).expect("out is large enough"),
        }
    }

    fn decompress(&mut self, payload: &[u8], block: &mut Block) {
        match self {
            Self::Lz4(_) => decompress_into(payload, block).expect("it was compressed so"),
            Self::Zstd(_, context) => context.decompress(&mut block[..], payload).expect("it was compressed so"),
        };
    }
}

/// A walk over all blocks in an order that no prefetcher follows.
fn scattered(at: &mut usize) -> usize {
    *at = (*at + 7919) % BLOCKS;
    *at
}

fn codecs(c: &mut Criterion) {
    let blocks = blocks();
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    for codec in CODECS {
        let mut raw = Raw::new(codec);
        let mut out = vec![0; get_maximum_output_size(BLOCK_SIZE)];
        let payloads: Vec<Vec<u8>> = blocks
            .iter()
            .map(|block| {
                let len = raw.compress(block, &mut out);
                out[..len].to_vec()
            })
            .collect();
        let mut block = [0; BLOCK_SIZE];

        let mut at = 0;
        group.bench_function(BenchmarkId::new("raw_compress", codec), |b| {
            b.iter(|| black_box(raw.compress(&blocks[scattered(&mut at)], &mut out)));
        });
        let store = store(codec);
        for (at, block) in (0..).zip(&blocks) {
            store.write(at, block).expect("all fits");
        }
        // Each block moves on by one place in each round: sizes change, as they do when a guest overwrites.
        let mut shift = 0;
        group.bench_function(BenchmarkId::new("write", codec), |b| {
            b.iter(|| {
                let at = scattered(&mut at);
                shift += usize::from(at == 0);
                store.write(at as u64, &blocks[(at + shift) % BLOCKS]).expect("all fits");
            });
        });

        for (at, block) in (0..).zip(&blocks) {
            store.write(at, block).expect("all fits");
        }
        group.bench_function(BenchmarkId::new("raw_decompress", codec), |b| {
            b.iter(|| raw.decompress(black_box(&payloads[scattered(&mut at)]), &mut block));
        });
        group.bench_function(BenchmarkId::new("read", codec), |b| {
            b.iter(|| store.read(scattered(&mut at) as u64, black_box(&mut block)).expect("it was written"));
        });
    }
    group.finish();
}

/// The bare codec, the same with a copy of the payload into media, and the store, in turns of 64 blocks: what else the
/// machine does meets all three alike. Prints medians. For blocks that do not shrink, too: the codec gives up on them
/// early, so what it takes to keep them, a copy of 4 KiB into memory that is in no cache, is a large part.
fn turns(_: &mut Criterion) {
    const TURN: usize = 64;
    let mut next = words();
    let noise: Vec<Block> = (0..BLOCKS)
        .map(|_| {
            let mut block = [0; BLOCK_SIZE];
            block.as_chunks_mut().0.fill_with(|| next().to_le_bytes());
            block
        })
        .collect();
    for (name, blocks) in [("shrinks", blocks()), ("noise", noise)] {
        for codec in CODECS {
            let mut raw = Raw::new(codec);
            let mut out = vec![0; get_maximum_output_size(BLOCK_SIZE)];
            let mut media = vec![[1; BLOCK_SIZE]; BLOCKS];
            let store = store(codec);
            for (at, block) in (0..).zip(&blocks) {
                store.write(at, block).expect("all fits");
            }
            let mut times = [const { Vec::new() }; 3];
            let mut at = 0;
            for turn in 0..6 * BLOCKS / TURN {
                // Each of the three begins as often as the others.
                for way in (0..3).map(|way| (way + turn) % 3) {
                    let start = Instant::now();
                    for _ in 0..TURN {
                        let block = &blocks[scattered(&mut at)];
                        let to = at * 31 % BLOCKS;
                        if way == 2 {
                            store.write(to as u64, block).expect("all fits");
                            continue;
                        }
                        let len = black_box(raw.compress(block, &mut out));
                        if way == 1 {
                            let payload = if len < BLOCK_SIZE - 32 { &out[..len] } else { &block[..] };
                            black_box(&mut media[to])[..payload.len()].copy_from_slice(payload);
                        }
                    }
                    times[way].push(start.elapsed().as_nanos() as f64 / TURN as f64);
                }
            }
            let [bare, copied, written] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            println!(
                "turns/{name}/{codec}: codec {bare:.0} ns, with a copy {copied:.0} ns ({:+.1} %), store {written:.0} ns ({:+.1} %)",
                (copied / bare - 1.0) * 100.0,
                (written / bare - 1.0) * 100.0
            );
        }
    }
}

/// Same-filled blocks from first look to map entry.
fn fill(c: &mut Criterion) {
    let store = store(Codec::Lz4);
    let block = [0x5a; BLOCK_SIZE];
    let mut copy = [0; BLOCK_SIZE];
    let mut at = 0;
    let mut group = c.benchmark_group("fill");
    group.bench_function("memcpy", |b| b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&block))));
    group.bench_function("store", |b| {
        b.iter(|| store.write(scattered(&mut at) as u64, black_box(&block)).expect("takes no media"));
    });
    group.bench_function("load", |b| {
        b.iter(|| store.read(scattered(&mut at) as u64, black_box(&mut copy)).expect("it was written"));
    });
    group.finish();
}

/// Time a block when 1 and 2 threads write at once, each all over the store; and the same without a store. The
/// reported time is wall time for one block of all threads together: half of it with two threads is perfect.
fn threads(c: &mut Criterion) {
    let blocks = blocks();
    let mut group = c.benchmark_group("threads");
    for codec in CODECS {
        let store = store(codec);
        for threads in [1, 2] {
            group.bench_function(BenchmarkId::new(format!("raw_compress/{threads}"), codec), |b| {
                b.iter_custom(|iters| {
                    on(threads, iters, || {
                        let (mut raw, mut out) = (Raw::new(codec), vec![0; get_maximum_output_size(BLOCK_SIZE)]);
                        let blocks = &blocks;
                        move |at| {
                            black_box(raw.compress(&blocks[at % BLOCKS], &mut out));
                        }
                    })
                });
            });
            group.bench_function(BenchmarkId::new(format!("write/{threads}"), codec), |b| {
                b.iter_custom(|iters| {
                    on(threads, iters, || {
                        |at| store.write((at * 7919 % BLOCKS) as u64, &blocks[at % BLOCKS]).expect("all fits")
                    })
                });
            });
        }
    }
    group.finish();
}

/// Wall time for `iters` calls spread over threads that take the next number until all are done.
fn on<F: FnMut(usize)>(threads: usize, iters: u64, make: impl Fn() -> F + Sync) -> Duration {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut work = make();
                loop {
                    // Sixteen at a time, or the counter itself would be measured.
                    let at = next.fetch_add(16, Relaxed);
                    if at >= iters {
                        break;
                    }
                    (at..iters.min(at + 16)).for_each(|at| work(at as usize));
                }
            });
        }
    });
    start.elapsed()
}

/// What the medium (poison, watermarks, the locks above the store) adds to the store, for 1, 2 and 4 threads that each have
/// blocks of their own. Same-filled blocks, so that the codec does not hide it, and lz4. In turns, as above; prints medians
/// of the time a block takes of all threads together.
fn medium(_: &mut Criterion) {
    const TURN: u64 = 10_000;
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config =
        MediaConfig { capacity: 256 << 20, physical: (2 * BLOCKS * BLOCK_SIZE) as u64, codec: Codec::Lz4, watermarks };
    for (name, blocks) in [("fill", vec![[0x5a; BLOCK_SIZE]]), ("lz4", blocks())] {
        let media = Media::new(&config).expect("the medium is valid");
        let store = store(Codec::Lz4);
        for threads in [1, 2, 4] {
            let mut times = [const { Vec::new() }; 2];
            for turn in 0..31 {
                for way in (0..2).map(|way| (way + turn) % 2) {
                    let time = on(threads, TURN, || {
                        |at| {
                            let (to, block) = ((at * 7919 % BLOCKS) as u64, &blocks[at % blocks.len()]);
                            match way {
                                0 => store.write(to, block).expect("all fits"),
                                _ => media.store(to, block),
                            }
                        }
                    });
                    times[way].push(time.as_nanos() as f64 / TURN as f64);
                }
            }
            let [stored, settled] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            println!(
                "medium/{name}/{threads}: store {stored:.0} ns, medium {settled:.0} ns ({:.2} times as long)",
                settled / stored
            );
        }
    }
}

criterion_group!(benches, codecs, turns, fill, threads, medium);
criterion_main!(benches);
