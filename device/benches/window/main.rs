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

#[path = "../../tests/window/traces.rs"]
mod traces;
mod working_set;
mod zram;

const SERVER: &str = "CXL_CRAM_BENCH_SERVER";
/// Settings of the server, in bytes. Without the first the cache holds more than the window: what leaves it, leaves it by
/// request.
const CACHE: &str = "CXL_CRAM_BENCH_CACHE";
const READAHEAD: &str = "CXL_CRAM_BENCH_READAHEAD";
const KERNEL_READAHEAD: &str = "CXL_CRAM_BENCH_KERNEL_READAHEAD";
const PAGE: usize = 4096;
const PAGES: usize = 4096;
const CAPACITY: u64 = 64 << 20;

/// Obeys lines, with one number each: `evict` drops everything and says how many nanoseconds that took, `loaded` says how
/// many pages were loaded from the medium.
fn serve(directory: &Path) {
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    let config = MediaConfig { capacity: CAPACITY, physical: CAPACITY, codec: Codec::Lz4, watermarks };
    let media = Media::new(&config).unwrap();
    let default = FuseConfig::default();
    let config = FuseConfig {
        cache_bytes: setting(CACHE, 4 * CAPACITY),
        flush_interval: Duration::from_secs(3600),
        directory: directory.to_path_buf(),
        readahead: setting(READAHEAD, default.readahead),
        kernel_readahead: setting(KERNEL_READAHEAD, default.kernel_readahead.into()) as u32,
        ..default
    };
    let window = FuseWindow::new(config, Arc::clone(&media)).unwrap();
    println!("0");
    for line in std::io::stdin().lines() {
        if line.unwrap() == "loaded" {
            let resident = window.resident();
            println!("{}", resident.faults + resident.prefetched);
        } else {
            let start = Instant::now();
            window.invalidate(0..CAPACITY);
            println!("{}", start.elapsed().as_nanos());
        }
    }
}

struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn new(directory: &Path, settings: &[(&str, u64)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.envs(settings.iter().map(|(name, value)| (name, value.to_string())));
        let command = command.env(SERVER, directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, stdin, stdout };
        server.answer();
        server
    }

    fn answer(&mut self) -> u64 {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    fn ask(&mut self, command: &str) -> u64 {
        writeln!(self.stdin, "{command}").unwrap();
        self.answer()
    }

    fn evict(&mut self) -> Duration {
        Duration::from_nanos(self.ask("evict"))
    }

    fn loaded(&mut self) -> u64 {
        self.ask("loaded")
    }

    fn stop(self) {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        child.wait().unwrap();
    }
}

/// The window in a directory, for a client to map.
fn open(directory: &Path) -> File {
    let mount = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    File::options().read(true).write(true).open(mount.join("hdm")).unwrap()
}

/// Every page once, in an order without neighbours.
fn scattered() -> impl Iterator<Item = usize> {
    (0..PAGES).map(|n| n * 1597 % PAGES)
}

fn load(map: &[u8], pages: impl Iterator<Item = usize>) {
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
fn fill(map: &mut [u8]) {
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
    let mut server = Server::new(directory.path(), &[]);
    let file = open(directory.path());
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
    if let Some(cgroup) = std::env::var_os(zram::CHILD) {
        return zram::child(cgroup.as_ref());
    }
    if let Some(directory) = std::env::var_os(SERVER) {
        return serve(directory.as_ref());
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse cannot be opened");
        return;
    }
    benches();
    working_set::rows();
    Criterion::default().configure_from_args().final_summary();
}
