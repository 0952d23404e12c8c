//! What the window tests share: a client in a process of its own, as QEMU is one.
//!
//! The test binary starts itself again with [`CLIENT`] set and then obeys lines on standard input. A mapping in the
//! test's own process would wait for handlers in that same process while holding its memory map.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::traces;
use cxl_cram_device::{
    hdm::{
        Window,
        fuse::{FuseConfig, FuseWindow},
        media::{Media, MediaConfig, Threshold, Watermarks},
    },
    store::Codec,
    vfio_user::Stop,
};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const PAGE: u64 = 4096;
const CLIENT: &str = "CXL_CRAM_TEST_CLIENT";

/// A table of test functions and their names.
macro_rules! named {
    ($($test:ident),+ $(,)?) => { &[$((stringify!($test), $test)),+] };
}
pub(crate) use named;

/// A medium with watermarks at 10 % and 20 %.
pub(crate) fn media(capacity: u64, physical: u64) -> Arc<Media> {
    let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
    Media::new(&MediaConfig { capacity, physical, codec: Codec::Lz4, watermarks }).unwrap()
}

/// A window with the smallest cache and no background write-back, in a directory of the test's own.
pub(crate) struct Setup {
    pub(crate) media: Arc<Media>,
    pub(crate) window: Arc<FuseWindow>,
    pub(crate) directory: tempfile::TempDir,
}

impl Setup {
    pub(crate) fn new(capacity: u64, physical: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let media = media(capacity, physical);
        let window = FuseWindow::new(config(directory.path()), Arc::clone(&media)).unwrap();
        Self { media, window, directory }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&window_file(self.directory.path()))
    }

    /// The sum of the first words of the pages in the medium, up to so many bytes, after a flush.
    pub(crate) fn sum_of_counters(&self, bytes: u64) -> u64 {
        self.window.flush();
        let mut block = [0; PAGE as usize];
        let mut sum = 0;
        for page in 0..bytes / PAGE {
            self.media.load(page, &mut block);
            sum += u64::from_le_bytes(block[..8].try_into().unwrap());
        }
        sum
    }
}

pub(crate) fn config(directory: &Path) -> FuseConfig {
    FuseConfig {
        cache_bytes: FuseWindow::MIN_CACHE,
        flush_interval: Duration::from_secs(3600),
        directory: directory.to_path_buf(),
        ..FuseConfig::default()
    }
}

/// The file of the one window in a directory.
pub(crate) fn window_file(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap();
    let path = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    path.join("hdm")
}

/// Mounts below a directory.
pub(crate) fn mounts_below(directory: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(directory.to_str().unwrap())).map(str::to_owned).collect()
}

/// Another process that maps the window.
pub(crate) struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn new(file: &Path) -> Self {
        let mut child = again(CLIENT, file).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    pub(crate) fn ask(&mut self, command: &str) -> u64 {
        writeln!(self.stdin, "{command}").unwrap();
        answer(&mut self.stdout)
    }

    /// Gives a command whose answer is not awaited: it is the last one.
    pub(crate) fn begin(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// Gives a command that it does not survive; tells the signal that ended it.
    pub(crate) fn end_by(&mut self, command: &str) -> Option<i32> {
        writeln!(self.stdin, "{command}").unwrap();
        self.child.wait().unwrap().signal()
    }

    /// Stores a word.
    pub(crate) fn store(&mut self, dpa: u64, value: u64) {
        self.ask(&format!("store {dpa} {value}"));
    }

    /// Loads a word.
    pub(crate) fn load(&mut self, dpa: u64) -> u64 {
        self.ask(&format!("load {dpa} 0"))
    }

    /// Fills pages with bytes that do not compress.
    pub(crate) fn noise(&mut self, first: u64, pages: u64) {
        self.ask(&format!("noise {first} {pages}"));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This test binary again, in the part that `variable` stands for.
pub(crate) fn again(variable: &str, value: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(variable, value);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The next number a child says; other lines are passed by.
pub(crate) fn answer(from: &mut impl BufRead) -> u64 {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(from.read_line(&mut line).unwrap(), 0, "the child ended");
        if let Some((_, value)) = line.trim().split_once("answer ") {
            return value.parse().unwrap();
        }
    }
}

/// A word of noise for a place.
pub(crate) fn noise_word(dpa: u64) -> u64 {
    let mut x = dpa.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The client's side. False if this process is none.
pub(crate) fn client_process() -> bool {
    let Some(path) = std::env::var_os(CLIENT) else { return false };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    // SAFETY: a shared mapping of an open file, of its size, at an address the kernel chooses.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED);
    // SAFETY: the mapping is never unmapped; all access to it is by atomics.
    let words = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), size as usize / 8) };
    let resident = || {
        let mut map = vec![0_u8; (size / PAGE) as usize];
        // SAFETY: the vector has a byte for each page of the mapping.
        assert_eq!(unsafe { libc::mincore(words.as_ptr().cast_mut().cast(), size as usize, map.as_mut_ptr()) }, 0);
        map.iter().filter(|&&page| page & 1 != 0).count() as u64
    };
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let mut fields = line.split(' ');
        let command = fields.next().unwrap();
        let mut numbers = fields.map(|field| field.parse::<u64>().unwrap());
        let (a, b) = (numbers.next().unwrap(), numbers.next().unwrap());
        let value = match command {
            "load" => words[a as usize / 8].load(Ordering::SeqCst),
            "store" => words[a as usize / 8].swap(b, Ordering::SeqCst),
            "noise" => {
                for word in a * PAGE / 8..(a + b) * PAGE / 8 {
                    words[word as usize].store(noise_word(word * 8), Ordering::Relaxed);
                }
                b
            }
            // What lz4 keeps as it is and zstd halves.
            "nibbles" => {
                for word in a * PAGE / 8..(a + b) * PAGE / 8 {
                    words[word as usize].store(noise_word(word * 8) & 0x0f0f_0f0f_0f0f_0f0f, Ordering::Relaxed);
                }
                b
            }
            "race" => race(words, a, b),
            "streams" => streams(words, a, b),
            "trace" => {
                let (_, trace) = &traces::traces()[a as usize];
                trace.iter().for_each(|page| _ = words[page * PAGE as usize / 8].load(Ordering::Relaxed));
                trace.len() as u64
            }
            "sweep" => sweep(words, a, &resident),
            "resident" => resident(),
            _ => panic!("{line}"),
        };
        println!("\nanswer {value}");
    }
    true
}

/// `threads` threads add one to the first word of random pages, `times` times each.
fn race(words: &[AtomicU64], threads: u64, times: u64) -> u64 {
    thread::scope(|scope| {
        for seed in 0..threads {
            scope.spawn(move || {
                for step in 0..times {
                    let page = noise_word(seed << 32 | step) % (words.len() as u64 * 8 / PAGE);
                    words[(page * PAGE / 8) as usize].fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    threads * times
}

/// `threads` threads add one to the first word of every page, page after page, every other one from the last to the first.
fn streams(words: &[AtomicU64], threads: u64, rounds: u64) -> u64 {
    let pages = words.len() as u64 * 8 / PAGE;
    thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || {
                for step in 0..rounds * pages {
                    let at = (step + number * pages / threads) % pages;
                    let page = if number % 2 == 0 { at } else { pages - 1 - at };
                    words[(page * PAGE / 8) as usize].fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    threads * rounds * pages
}

/// How often this thread was made to wait for the processor.
fn preemptions() -> i64 {
    // SAFETY: all-zero bytes are a valid rusage, and the kernel writes one into it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_nivcsw
    }
}

/// Touches every page of the window from four threads, every other one with a store, `rounds` times, and tells the most
/// pages that were ever seen resident meanwhile.
fn sweep(words: &[AtomicU64], rounds: u64, resident: &(impl Fn() -> u64 + Sync)) -> u64 {
    let done = Stop::new().unwrap();
    thread::scope(|scope| {
        let swept = done.on_drop();
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.is_triggered() {
                // mincore walks the pages one after the other. If this thread is made to wait on its way, it counts pages
                // that went meanwhile together with those that came in their place.
                let before = preemptions();
                let pages = resident();
                if preemptions() == before {
                    most = most.max(pages);
                }
            }
            most
        });
        let quarter = words.len() / 4;
        let sweepers: Vec<_> = words
            .chunks(quarter)
            .map(|part| {
                scope.spawn(move || {
                    for _ in 0..rounds {
                        for page in part.chunks((PAGE / 8) as usize) {
                            if page[0].load(Ordering::Relaxed) % 2 == 0 {
                                page[1].fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        sweepers.into_iter().for_each(|sweeper| sweeper.join().unwrap());
        drop(swept);
        sampler.join().unwrap()
    })
}
