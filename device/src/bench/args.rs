//! The flags of `cxl-cram-device bench`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use cxl_cram_kit::size::parse_bytes;

use super::{input::Named, planner::Goal};
use crate::{shape, store::Codec};

/// Bytes measured of big inputs by default.
pub(super) const DEFAULT_SAMPLE: u64 = 1 << 30;

/// Measure how well data would compress on the device.
///
/// Reads files, directories, memory dumps, a process or a stream; runs every codec on all CPUs; reports what the data would take
/// on the device, how long a block takes, and how much capacity a device could promise for such data. Needs no guest.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("what").multiple(false).args(["inputs", "pid"]))]
#[command(after_help = "\
Examples:
  A directory with three codecs (a sample of 1 GiB, spread evenly):
    cxl-cram-device bench /usr/lib

  All of a guest's memory, from QEMU's dump-guest-memory, as a web page:
    cxl-cram-device bench --all --html guest.html guest.elf

  A running process, at several block sizes:
    cxl-cram-device bench --pid 4711 --codec lz4,zstd:3 --block-size 1K,4K,16K

  What a compressed core has in it, not the compressed bytes:
    zstd -dc core.zst | cxl-cram-device bench -

  What could 256 GiB of media promise, if 2000 MiB/s are demoted and 800 MiB/s reclaimed?
    cxl-cram-device bench --physical 256G --write-rate 2000 --reclaim-rate 800 guest.elf

Exit code: 0, or 1 if anything could not be read, or 130 if interrupted; what was measured is reported all the same.")]
pub struct BenchArgs {
    /// Files, directories, core dumps, memory images; `-` or nothing is standard input
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Measure the resident anonymous pages of this process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=0x7fff_ffff))]
    pub pid: Option<u32>,

    /// Codecs: lz4, zstd or zstd:LEVEL
    #[arg(value_parser = parse_codec, long, value_name = "CODEC", value_delimiter = ',', default_value = "lz4,zstd:1,zstd:3")]
    pub codec: Vec<Codec>,

    /// Block sizes: 1K, 2K, 4K, 8K or 16K
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "4K", value_parser = parse_block_size)]
    pub block_size: Vec<usize>,

    /// Measure at most about this much, spread evenly over the input [default: 1G; a stream is measured whole]
    #[arg(long, value_name = "SIZE", value_parser = parse_sample)]
    pub sample: Option<u64>,

    /// Measure everything
    #[arg(long, conflicts_with = "sample")]
    pub all: bool,

    /// Measure files and streams as the bytes they are: compressed ones too, holes as zeros, core dumps with their headers
    #[arg(long, conflicts_with = "pid")]
    pub as_is: bool,

    /// Where the sample and the planner draw from: the same seed, the same draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Threads that compress [default: one a CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Planner: media that the device has
    #[arg(long, value_name = "SIZE", default_value = "256G", value_parser = parse_physical)]
    pub physical: u64,

    /// Planner: size of a window of the guest's data, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub window: u64,

    /// Planner: how likely a window may overflow its share of the media
    #[arg(long, value_name = "P", default_value = "1e-6", value_parser = parse_odds)]
    pub odds: f64,

    /// Planner: how fast the guest demotes, MiB per second
    #[arg(long, value_name = "MIB/S", default_value = "1000", value_parser = parse_rate)]
    pub write_rate: f64,

    /// Planner: how fast the guest reclaims, MiB per second
    #[arg(long, value_name = "MIB/S", default_value = "500", value_parser = parse_rate)]
    pub reclaim_rate: f64,

    /// Planner: from the low crossing to the last demoted byte, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub reaction: u64,

    /// Planner: shortest time from a low crossing to the high one, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub hysteresis: u64,

    /// Also run the bare codecs on each page, and say how near the whole bench comes to them; takes twice as long
    #[arg(long)]
    pub compare_raw: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    /// Also write the report as one self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl BenchArgs {
    /// What the planner plans for.
    pub(super) fn goal(&self) -> Goal {
        Goal {
            physical: self.physical,
            window: self.window,
            odds: self.odds,
            write_rate: self.write_rate,
            reclaim_rate: self.reclaim_rate,
            reaction: self.reaction,
            hysteresis: self.hysteresis,
        }
    }

    /// What is measured.
    pub(super) fn named(&self) -> Named<'_> {
        match self.pid {
            Some(pid) => Named::Process(pid),
            None if self.inputs.is_empty() => Named::Stdin,
            None => Named::Paths(&self.inputs),
        }
    }
}

fn parse_block_size(text: &str) -> Result<usize, String> {
    match parse_bytes(text) {
        Ok(size @ (1024 | 2048 | 4096 | 8192 | 16_384)) => Ok(size as usize),
        _ => Err(format!("'{text}' is not a block size: use 1K, 2K, 4K, 8K or 16K")),
    }
}

fn parse_sample(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("a sample needs at least a byte; use --all for everything".into()),
        bytes => Ok(bytes),
    }
}

/// Media that some device has.
fn parse_physical(text: &str) -> Result<u64, String> {
    let physical = parse_bytes(text)?;
    shape::check(shape::CAPACITY_MAX, physical).map(|()| physical).map_err(|error| error.to_string())
}

fn parse_odds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(odds) if (1e-12..=0.5).contains(&odds) => Ok(odds),
        _ => Err(format!("'{text}' is not such a probability: use 1e-12 to 0.5")),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err(format!("'{text}' is not a rate: use MiB per second, 0 to 1e9")),
    }
}

/// A codec that can be measured.
fn parse_codec(text: &str) -> Result<Codec, String> {
    match text.parse().map_err(|error: crate::store::CodecError| error.to_string())? {
        Codec::Adaptive(level) => Err(format!(
            "when adaptive recompresses depends on the guest, so measure both of its codecs: --codec lz4,zstd:{level}"
        )),
        codec => Ok(codec),
    }
}
