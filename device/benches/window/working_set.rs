//! A working set larger than the cache: how many pages are loaded from the medium for one access, beside an LRU of single
//! pages, and how long the trace takes; with the device's read-ahead, with the kernel's, with none, and on zram.

use std::time::Duration;

use memmap2::MmapOptions;

use super::{CACHE, KERNEL_READAHEAD, PAGE, READAHEAD, Server, fill, load, open, timed, traces, zram::Zram};

/// Cache sizes, bytes.
const CACHES: [u64; 2] = [4 << 20, 16 << 20];

/// What the window is started with.
const SETTINGS: [(&str, &[(&str, u64)]); 3] = [
    ("default", &[]),
    ("kernel 128K", &[(READAHEAD, 4096), (KERNEL_READAHEAD, 128 << 10)]),
    ("off", &[(READAHEAD, 4096)]),
];

/// Prints the table.
pub(super) fn rows() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut traces = traces::traces().to_vec();
    traces.retain(|(name, _)| filter.is_none_or(|filter| format!("working set/{name}").contains(filter)));
    // Without --bench it is a test of the bench alone.
    if traces.is_empty() || !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    println!("\nworking set of 42 MiB: pages loaded per access, and time of {} accesses", traces::ACCESSES);
    print!("{:>5} {:30} {:>7}", "cache", "access", "LRU");
    SETTINGS.iter().for_each(|(name, _)| print!(" {name:>16}"));
    println!(" {:>16}", "swap on zram");
    let zram = Zram::new();
    for cache in CACHES {
        for (name, trace) in &traces {
            let lru = traces::lru_misses(trace, cache as usize / PAGE);
            print!("{:>4}M {name:30} {:>7.3}", cache >> 20, per_access(lru));
            for (_, settings) in SETTINGS {
                let settings = [settings, &[(CACHE, cache)]].concat();
                let (loaded, time) = fastest(|| run(&settings, trace));
                print!(" {:>7.3} {:>6.2} s", per_access(loaded), time.as_secs_f64());
            }
            match &zram {
                Ok(zram) => {
                    let (loaded, time) = fastest(|| zram.run(cache, name));
                    println!(" {:>7.3} {:>6.2} s", per_access(loaded), time.as_secs_f64());
                }
                Err(_) => println!(" {:>16}", "skipped"),
            }
        }
    }
    if let Err(reason) = zram {
        println!("zram was skipped: {reason}");
    }
}

fn per_access(pages: u64) -> f64 {
    pages as f64 / traces::ACCESSES as f64
}

/// The fastest of three runs, or the first if it took longer than a second: it is not an accident of scheduling that decides
/// then.
fn fastest(mut run: impl FnMut() -> (u64, Duration)) -> (u64, Duration) {
    let first = run();
    if first.1 > Duration::from_secs(1) {
        return first;
    }
    [first, run(), run()].into_iter().min_by_key(|&(_, time)| time).unwrap()
}

/// A trace on a fresh window: pages loaded, and time.
fn run(settings: &[(&str, u64)], trace: &[usize]) -> (u64, Duration) {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::new(directory.path(), settings);
    let file = open(directory.path());
    // SAFETY: the file is ours alone, and its server outlives the mapping.
    let mut window = unsafe { MmapOptions::new().len(traces::PAGES * PAGE).map_mut(&file) }.unwrap();
    fill(&mut window);
    server.evict();
    let before = server.loaded();
    let time = timed(|| load(&window, trace.iter().copied()));
    let loaded = server.loaded() - before;
    drop((window, file));
    server.stop();
    (loaded, time)
}
