//! The bench: how well data would compress on the device, without a guest.
//!
//! It reads pages of 4 KiB from files, memory dumps or a process, compresses them with each codec on all cores, and
//! reports how much media they would take, how long a block takes, and how much capacity a device could promise for such data.
//! `docs/bench.md` explains every figure.

mod args;
mod container;
mod core_file;
mod holes;
pub mod html;
mod input;
mod measure;
mod packing;
mod planner;
mod process;
mod progress;
mod reader;
pub mod report;
mod sample;
mod text;
mod times;
mod walk;
mod words;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

pub use args::BenchArgs;
use args::DEFAULT_SAMPLE;
use input::Input;
use measure::{Check, Config, Findings, Orders, Tally, Worker};
use parking_lot::Mutex;
use planner::Measured;
use progress::Progress;
use reader::{CHUNK, Choice, Feed, Reader, Taken};
use report::{CodecResult, Compressed, Machine, Report, Sample, Source, StoreCheck, Throughput};

use crate::store::{Codec, StoreError};
use cxl_cram_kit::size::format_bytes;

/// Bytes in a page of the input.
const PAGE: usize = 4096;
/// Exit code after SIGINT or SIGTERM.
const INTERRUPTED: u8 = 130;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nothing could be read; the reasons are in the failures.
    #[error("nothing was measured: {0}")]
    Nothing(String),
    /// The codec has no memory for its state.
    #[error("{0} has no memory for its state; use fewer threads or a lower level")]
    NoCodec(Codec),
    /// A codec did not give back what it took.
    #[error("{0} does not decompress what it compressed: a defect of the codec, please report it")]
    Corrupt(Codec),
    /// The store could not be made, or refused a block.
    #[error("the store that checks the packing failed")]
    Store(#[from] StoreError),
    /// A thread is gone.
    #[error("a measuring thread panicked: a defect, please report it")]
    Thread,
    /// The handler of signals could not be set.
    #[error("cannot wait for SIGINT")]
    Signal(#[source] io::Error),
    /// Standard output.
    #[error("cannot write the report")]
    Output(#[source] io::Error),
    /// The page.
    #[error("cannot write {}", path.display())]
    Html {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Measures and reports. The exit code is 0, 1 if an input failed, or 130 if a signal ended it.
pub fn run(args: &BenchArgs) -> Result<ExitCode, BenchError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second signal kills, in case the first is not noticed.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .map_err(BenchError::Signal)?;
    }
    let report = measure(args, &interrupted)?;
    for failure in &report.failures {
        eprintln!("cxl-cram-device: {failure}");
    }
    // The page first: a closed pipe must not cost it.
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&report)).map_err(|source| BenchError::Html { path: path.clone(), source })?;
    }
    print(args, &report).map_err(BenchError::Output)?;
    Ok(match (report.source.interrupted, report.failures.is_empty()) {
        (true, _) => INTERRUPTED.into(),
        (false, false) => ExitCode::FAILURE,
        (false, true) => ExitCode::SUCCESS,
    })
}

fn print(args: &BenchArgs, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style = text::Style { bold: out.is_terminal() && !plain };
        out.write_all(text::render(report, style).as_bytes())?;
    }
    out.flush()
}

/// The codecs and block sizes asked for, each once.
fn configs(args: &BenchArgs) -> Vec<Config> {
    let mut configs = Vec::new();
    for &codec in &args.codec {
        for &block_size in &args.block_size {
            let config = Config { codec, block_size };
            if !configs.contains(&config) {
                configs.push(config);
            }
        }
    }
    configs
}

/// Of the first codec, the block size nearest to the store's.
fn planned(configs: &[Config]) -> usize {
    let distance = |config: &Config| config.block_size.ilog2().abs_diff(PAGE.ilog2());
    let first = configs.iter().enumerate().filter(|(_, config)| config.codec == configs[0].codec);
    first.min_by_key(|(_, config)| distance(config)).map_or(0, |(at, _)| at)
}

fn measure(args: &BenchArgs, interrupted: &AtomicBool) -> Result<Report, BenchError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cpus, usize::from);
    let configs = configs(args);
    let planned = planned(&configs);
    let checks = configs.iter().map(|config| Check::new(*config)).collect::<Result<Vec<_>, _>>()?;
    let orders = Orders { configs: &configs, checks: &checks, planned, compare_raw: args.compare_raw };

    let start = Instant::now();
    let input = Input::find(args.named(), args.as_is, threads, interrupted);
    let found_pages = input.pages();
    let sample = (!args.all).then(|| args.sample.unwrap_or(DEFAULT_SAMPLE).div_ceil(PAGE as u64));
    let pages = sample.map_or(found_pages, |sample| sample.min(found_pages));
    let explicit = args.sample.map(|bytes| bytes.div_ceil(PAGE as u64));
    let choice = Choice { pages, stream_pages: explicit.map(|sample| sample - sample.min(pages)), seed: args.seed };
    let progress = Mutex::new(Progress::new(input.streams.is_empty().then_some(pages * PAGE as u64)));
    let feed = Feed::new(&input, choice, interrupted);
    let mut found = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| Worker::new(orders)?.run(Reader::new(&feed), &progress))).collect();
        workers.into_iter().try_fold(Findings::new(&configs), |mut found, worker| {
            found.merge(worker.join().unwrap_or(Err(BenchError::Thread))?);
            Ok::<_, BenchError>(found)
        })
    })?;
    drop(progress);
    let taken = feed.taken();
    let bare = found.bare_ns as f64 / 1e9 / threads as f64;
    let seconds = start.elapsed().as_secs_f64() - bare;
    let interrupted = interrupted.load(Relaxed);

    let failures: Vec<String> = input.failures.iter().chain(&taken.failures).cloned().collect();
    if found.pages == 0 {
        let holes = match input.holes {
            0 => String::new(),
            holes => format!(": {} of holes, which were never written", format_bytes(holes)),
        };
        let empty =
            format!("{} has no data in it{holes}", if input.what.is_empty() { "the input" } else { &input.what });
        let stopped = interrupted.then(|| "interrupted before the first page".to_owned());
        let reason = stopped.unwrap_or_else(|| if failures.is_empty() { empty } else { failures.join("; ") });
        return Err(BenchError::Nothing(reason));
    }
    found.runs.sort_by_key(|run| run.number);
    let compressed = found.tallies.iter().any(|tally| tally.compress.blocks() > 0);
    let engine_over_raw = (args.compare_raw && compressed && seconds > 0.0).then(|| bare / seconds);

    let results: Vec<CodecResult> = configs
        .iter()
        .zip(&found.tallies)
        .zip(&checks)
        .map(|((config, tally), check)| result(*config, tally, check.as_ref(), threads, engine_over_raw))
        .collect();
    let correction = results[planned].store_check.as_ref().map_or(1.0, correction);
    let sampled = (pages < found_pages || taken.cut).then(|| Sample {
        bytes: args.sample.unwrap_or(DEFAULT_SAMPLE),
        run_bytes: if taken.cut { taken.stream_bytes } else { (CHUNK as u64).min(pages * PAGE as u64) },
        seed: args.seed,
    });
    let measured = Measured {
        config: configs[planned],
        runs: &found.runs,
        bytes: found.pages * PAGE as u64,
        correction,
        sampled: pages < found_pages,
    };
    let plan = planner::plan(&args.goal(), measured, args.seed);
    let (planner, no_plan) = match plan {
        Ok(plan) => (Some(plan), None),
        Err(why) => (None, Some(why.to_string())),
    };
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").into(),
        source: source(&input, &taken, &found, sampled, interrupted, seconds),
        same_filled: found.same_filled,
        machine: Machine { cpus, threads },
        planner,
        no_plan,
        results,
        failures,
    })
}

fn source(
    input: &Input,
    taken: &Taken,
    found: &Findings,
    sampled: Option<Sample>,
    interrupted: bool,
    seconds: f64,
) -> Source {
    let page = PAGE as u64;
    Source {
        what: input.what.clone(),
        bytes_found: input.pages() * page + taken.stream_bytes,
        bytes_measured: found.pages * page,
        pages: found.pages,
        parts: taken.parts,
        skipped: input.skipped,
        holes_bytes: input.holes,
        compressed: taken
            .compressed
            .iter()
            .map(|(container, parts)| Compressed { format: container.name().into(), parts: *parts })
            .collect(),
        sampled,
        interrupted,
        seconds,
    }
}

/// The real store's footprint divided by the rule's; 1 if the rule's is 0.
fn correction(check: &StoreCheck) -> f64 {
    if check.rule_bytes == 0 { 1.0 } else { check.store_bytes as f64 / check.rule_bytes as f64 }
}

fn result(
    config: Config,
    tally: &Tally,
    check: Option<&Check>,
    threads: usize,
    engine_over_raw: Option<f64>,
) -> CodecResult {
    let store_check = check.filter(|_| tally.checked > 0).map(|check| StoreCheck {
        blocks: tally.checked,
        rule_bytes: tally.checked_packing.footprint(),
        store_bytes: check.bytes(),
    });
    let footprint = (tally.packing.footprint() as f64 * store_check.as_ref().map_or(1.0, correction)).round();
    let size = config.block_size as f64;
    let over = |logical: f64, taken: f64| (taken > 0.0).then(|| logical / taken);
    let (logical, data) = (tally.blocks as f64 * size, tally.data_bytes as f64);
    let distinct = (tally.blocks - tally.same_filled) as f64 * size;
    let filled_footprint = (tally.same_filled * crate::store::MAP_ENTRY) as f64;
    let rate = |times: &times::Times| {
        let seconds = times.total_ns as f64 / 1e9;
        over(times.blocks() as f64 * size / f64::from(1 << 20), seconds)
    };
    let (compress, decompress) = (rate(&tally.compress), rate(&tally.decompress));
    let in_all = |rate: Option<f64>| rate.map(|rate| rate * threads as f64);
    CodecResult {
        codec: config.codec.to_string(),
        block_size: config.block_size as u64,
        blocks: tally.blocks,
        same_filled_blocks: tally.same_filled,
        raw_blocks: tally.raw,
        data_bytes: tally.data_bytes,
        footprint_bytes: footprint as u64,
        data_ratio: over(logical, data),
        data_ratio_without_same_filled: over(distinct, data),
        effective_ratio: over(logical, footprint).unwrap_or(1.0),
        effective_ratio_without_same_filled: over(
            distinct,
            if data > 0.0 { footprint - filled_footprint } else { 0.0 },
        ),
        packing: (data > 0.0).then(|| data / footprint),
        store_check,
        histogram: tally.histogram.clone(),
        compress: tally.compress.summary(),
        decompress: tally.decompress.summary(),
        throughput: Throughput {
            compress_per_core_mib_s: compress,
            compress_all_cores_mib_s: in_all(compress),
            decompress_per_core_mib_s: decompress,
            decompress_all_cores_mib_s: in_all(decompress),
            engine_over_raw,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_repeats_what_caused_it() {
        let cause = || io::Error::from_raw_os_error(libc::EISDIR);
        for error in [
            BenchError::Signal(cause()),
            BenchError::Output(cause()),
            BenchError::Html { path: "page.html".into(), source: cause() },
            BenchError::Store(StoreError::OutOfRange { block: 1, blocks: 1 }),
        ] {
            let source = std::error::Error::source(&error).unwrap().to_string();
            let whole = format!("{:#}", anyhow::Error::from(error));
            assert_eq!(whole.matches(&source).count(), 1, "{whole}");
        }
    }
}
