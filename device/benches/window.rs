//! What a page of the FUSE window costs its client, beside plain memory in the same run. One element is one page.
//!
//! The server is a process of its own, as it is for QEMU: this binary, started again.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group};
use cxl_cram_device::{
    hdm::{
        Window,
        fuse::{FuseConfig, FuseWindow},
        media::{Media, MediaConfig, Threshold, Watermarks},
    },
    store::Codec,
};
use memmap2::{MmapMut, MmapOptions};

const SERVER: &str = "CXL_CRAM_BENCH_SERVER";
const PAGE: usize = 4096;
const PAGES: usize = 4096;
const CAPACITY: u64 = 64 << 20;

/// Obeys lines: evicts everything and says how many nanoseconds that took.
fn serve(directory: &Path) {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: CAPACITY, physical: CAPACITY, codec: Codec::Lz4, watermarks };
    let media = Media::new(&config).unwrap();
    let config = FuseConfig {
        // More than the window: what leaves it, leaves it by request.
        cache_bytes: 4 * CAPACITY,
        flush_interval: Duration::from_secs(3600),
        directory: directory.to_path_buf(),
        ..FuseConfig::default()
    };
    let window = FuseWindow::new(config, Arc::clone(&media)).unwrap();
    println!("0");
    for _ in std::io::stdin().lines() {
        let start = Instant::now();
        window.invalidate(0..CAPACITY);
        println!("{}", start.elapsed().as_nanos());
    }
}

struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn new(directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.env(SERVER, directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, stdin, stdout };
        server.answer();
        server
    }

    fn answer(&mut self) -> Duration {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        Duration::from_nanos(line.trim().parse().unwrap())
    }

    fn evict(&mut self) -> Duration {
        writeln!(self.stdin, "evict").unwrap();
        self.answer()
    }

    fn stop(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        child.wait().unwrap();
    }
}

/// Every page once, in an order without neighbours.
fn scattered() -> impl Iterator<Item = usize> {
    (0..PAGES).map(|n| n * 1597 % PAGES)
}

fn load(map: &MmapMut, pages: impl Iterator<Item = usize>) {
    for page in pages {
        // Volatile: this load is what is measured.
        // SAFETY: `page` is below PAGES, so the address is inside the mapping.
        black_box(unsafe { map.as_ptr().add(page * PAGE).read_volatile() });
    }
}

fn store(map: &mut MmapMut, pages: impl Iterator<Item = usize>) {
    for page in pages {
        // SAFETY: as for load.
        unsafe { map.as_mut_ptr().add(page * PAGE).write_volatile(black_box(1)) };
    }
}

/// Half of each page does not compress.
fn fill(map: &mut MmapMut) {
    let mut x = 1_u64;
    for bytes in map.chunks_exact_mut(PAGE).flat_map(|page| page[PAGE / 2..].chunks_exact_mut(8)) {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.copy_from_slice(&(x ^ x >> 29).to_le_bytes());
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn per_page(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::new(directory.path());
    let mount = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let file = File::options().read(true).write(true).open(mount.join("hdm")).unwrap();
    // SAFETY: the file is ours alone, and its server outlives the mapping.
    let mut window = unsafe { MmapOptions::new().len(PAGES * PAGE).map_mut(&file) }.unwrap();
    let mut plain = MmapMut::map_anon(PAGES * PAGE).unwrap();
    fill(&mut window);
    fill(&mut plain);

    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Elements(PAGES as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.bench_function("plain/load", |b| b.iter(|| load(&plain, scattered())));
    group.bench_function("plain/store", |b| b.iter(|| store(&mut plain, scattered())));
    group.bench_function("hot/load", |b| b.iter(|| load(&window, scattered())));
    store(&mut window, scattered());
    group.bench_function("hot/store", |b| b.iter(|| store(&mut window, scattered())));
    let rounds = |n: u64, mut round: Box<dyn FnMut() -> Duration + '_>| (0..n).map(|_| round()).sum::<Duration>();
    let read = |pages: Range<usize>, window: &MmapMut| timed(|| load(window, pages));
    group.bench_function("cold/load in order", |b| {
        b.iter_custom(|n| {
            rounds(
                n,
                Box::new(|| {
                    server.evict();
                    read(0..PAGES, &window)
                }),
            )
        });
    });
    group.bench_function("cold/load scattered", |b| {
        b.iter_custom(|n| {
            rounds(
                n,
                Box::new(|| {
                    server.evict();
                    timed(|| load(&window, scattered()))
                }),
            )
        });
    });
    group.bench_function("cold/store scattered", |b| {
        b.iter_custom(|n| {
            rounds(
                n,
                Box::new(|| {
                    server.evict();
                    timed(|| store(&mut window, scattered()))
                }),
            )
        });
    });
    group.bench_function("evict/clean", |b| {
        b.iter_custom(|n| {
            rounds(
                n,
                Box::new(|| {
                    server.evict();
                    read(0..PAGES, &window);
                    server.evict()
                }),
            )
        });
    });
    group.bench_function("evict/dirty", |b| {
        b.iter_custom(|n| {
            rounds(
                n,
                Box::new(|| {
                    store(&mut window, 0..PAGES);
                    server.evict()
                }),
            )
        });
    });
    group.finish();
    drop((window, file));
    server.stop();
}

criterion_group!(benches, per_page);

fn main() {
    if let Some(directory) = std::env::var_os(SERVER) {
        return serve(directory.as_ref());
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse cannot be opened");
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
