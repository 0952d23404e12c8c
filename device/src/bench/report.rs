//! The report: everything a run of the bench found, in one serialisable shape.
//!
//! `--json` prints it as it is; the table and the HTML page are views of it. Ratios are logical bytes over bytes
//! taken, so more is better. `None` (`null`) stands for a figure that the pages give no ground for.

use serde::{Deserialize, Serialize};

use cxl_cram_kit::size::exact_bytes;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program that wrote this.
    pub version: String,
    /// What was measured.
    pub source: Source,
    /// Pages of 4 KiB that repeat one 8-byte word. The store keeps them in its map, without media.
    pub same_filled: SameFilled,
    /// Where it was measured.
    pub machine: Machine,
    /// One a codec and block size, in the order they were asked for: block sizes within codecs.
    pub results: Vec<CodecResult>,
    /// What a device could promise for such data.
    pub planner: Option<Plan>,
    /// Why there is no plan: a sentence. None if there is one.
    pub no_plan: Option<String>,
    /// Inputs that could not be read, or not to their end: one sentence each.
    pub failures: Vec<String>,
}

/// The input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The inputs as they were named: paths, `standard input`, `process 4711`.
    pub what: String,
    /// Bytes the inputs have, without holes; files count to the end of their last page. For a stream: the bytes read.
    pub bytes_found: u64,
    /// Bytes that were measured: `pages` x 4096.
    pub bytes_measured: u64,
    /// Pages of 4 KiB that were measured.
    pub pages: u64,
    /// Files, streams or memory areas that gave pages.
    pub parts: u64,
    /// Sockets, devices, symbolic links and the like that were passed over in directories.
    pub skipped: u64,
    /// Bytes of sparse files that were never written. They are not measured.
    pub holes_bytes: u64,
    /// Parts that are compressed already, and are measured as the bytes they are.
    pub compressed: Vec<Compressed>,
    /// How the sample was drawn; None if all was to be measured.
    pub sampled: Option<Sample>,
    /// Whether a signal ended the run early. What is reported was measured until then.
    pub interrupted: bool,
    /// Wall-clock time of the measurement, finding the files included, the bare calls of `--compare-raw` not; seconds.
    pub seconds: f64,
}

/// Parts that are compressed already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressed {
    /// How: `zstd`, `lz4`, `gzip`, `xz`, `bzip2` or `qcow2`.
    pub format: String,
    /// Files or streams.
    pub parts: u64,
}

/// How a sample was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Bytes asked for.
    pub bytes: u64,
    /// Bytes of one contiguous run: runs are spread evenly, each at a random place of its share of the input.
    pub run_bytes: u64,
    /// Seed of those places.
    pub seed: u64,
}

/// Same-filled pages, by what fills them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SameFilled {
    /// Pages of zeros.
    pub zero: u64,
    /// Pages of another word.
    pub other: u64,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs this process may use.
    pub cpus: usize,
    /// Threads that compressed.
    pub threads: usize,
}

/// One codec at one block size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodecResult {
    /// Name of the codec, as `--codec` takes it.
    pub codec: String,
    /// Bytes in a block.
    pub block_size: u64,
    /// Blocks measured.
    pub blocks: u64,
    /// Blocks that repeat one 8-byte word.
    pub same_filled_blocks: u64,
    /// Blocks that do not shrink and are stored as they are.
    pub raw_blocks: u64,
    /// Payload bytes of all blocks: what the codec made, a whole block for raw ones, 0 for same-filled ones.
    pub data_bytes: u64,
    /// Bytes that store the same: frames of the slabs, map, back-pointers.
    pub footprint_bytes: u64,
    /// Logical bytes / `data_bytes`. None if every block is same-filled.
    pub data_ratio: Option<f64>,
    /// The same over the blocks that are not same-filled.
    pub data_ratio_without_same_filled: Option<f64>,
    /// Logical bytes / `footprint_bytes`.
    pub effective_ratio: f64,
    /// The same over the blocks that are not same-filled.
    pub effective_ratio_without_same_filled: Option<f64>,
    /// Payload bytes / footprint, 0 to 1. None if every block is same-filled.
    pub packing: Option<f64>,
    /// How the real store did on part of these blocks; None for block sizes it does not have.
    pub store_check: Option<StoreCheck>,
    /// Blocks by payload size: 64 classes of `block_size / 64` bytes; class `i` (from 0) counts payloads of
    /// `i * class + 1` to `(i + 1) * class` bytes. Raw blocks are in the last. Same-filled blocks are in none, so that
    /// the sum is `blocks - same_filled_blocks`.
    pub histogram: Vec<u64>,
    /// Time to compress one block that is not same-filled. None if there is none.
    pub compress: Option<BlockTime>,
    /// Time to decompress one block that the codec shrank. None if there is none.
    pub decompress: Option<BlockTime>,
    /// Throughput over the same blocks, logical MiB per second.
    pub throughput: Throughput,
}

/// The footprint by rule against the real store, over the same blocks. Both without what an empty store has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreCheck {
    /// Blocks that were also written to a real store.
    pub blocks: u64,
    /// Bytes that they take by the size-class rule.
    pub rule_bytes: u64,
    /// Bytes the store took. `footprint_bytes` of the result is the rule's, times `store_bytes / rule_bytes`.
    pub store_bytes: u64,
}

/// How long one block takes, nanoseconds. From a histogram with steps of 1/16 of a power of two, so exact to about 6 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockTime {
    /// Half of the blocks take at most this.
    pub median_ns: u64,
    /// 99 of 100 blocks take at most this.
    pub p99_ns: u64,
}

/// Logical MiB per second. None if nothing was compressed (or decompressed).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// One core compressing, while the others do the same.
    pub compress_per_core_mib_s: Option<f64>,
    /// All threads compressing.
    pub compress_all_cores_mib_s: Option<f64>,
    /// One core decompressing, while the others do the same.
    pub decompress_per_core_mib_s: Option<f64>,
    /// All threads decompressing.
    pub decompress_all_cores_mib_s: Option<f64>,
    /// Wall-clock time of the bare codec calls on the same pages by the same threads, over that of the whole bench: about 0
    /// to 1. Only with `--compare-raw`; one figure for the run, the same in every result.
    pub engine_over_raw: Option<f64>,
}

/// What a device could promise, for the first codec and its block size nearest to the store's 4 KiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Codec planned for.
    pub codec: String,
    /// Its block size, bytes.
    pub block_size: u64,
    /// Media the device has, bytes.
    pub physical: u64,
    /// Size of a window, MiB.
    pub window_mib: u64,
    /// Windows that may overflow: this probability each.
    pub odds: f64,
    /// What is assumed, one sentence each. Doubts about the figures included.
    pub assumptions: Vec<String>,
    /// Probability that a window overflows, by overcommit, ascending in both.
    pub curve: Vec<CurvePoint>,
    /// Capacity that can be promised, bytes: `overcommit * (physical - low_watermark)`, rounded down to 256 MiB
    /// (an HDM's granule), and 8 TiB at most.
    pub capacity: u64,
    /// Logical bytes that may be promised for each byte of media: the reciprocal of the footprint that a window of
    /// the given odds has.
    pub overcommit: f64,
    /// Contiguous runs of pages the statistics rest on.
    pub runs: u64,
    /// Mean footprint of a logical byte.
    pub mean_footprint: f64,
    /// Standard deviation of a window's footprint per logical byte.
    pub window_deviation: f64,
    /// Demotion rate, logical MiB per second.
    pub write_mib_s: f64,
    /// Reclaim rate, logical MiB per second.
    pub reclaim_mib_s: f64,
    /// From the low crossing to the last demoted byte, milliseconds.
    pub reaction_ms: u64,
    /// Shortest time between a low crossing and the next high one at that reclaim rate, milliseconds.
    pub hysteresis_ms: u64,
    /// Free media below which the device interrupts, bytes.
    pub low_watermark: u64,
    /// Free media above which the device reports that allocation may go on, bytes.
    pub high_watermark: u64,
}

impl Plan {
    /// The options with which `serve` makes this device.
    pub fn serve_flags(&self) -> Vec<String> {
        let sizes = [
            ("--capacity", self.capacity),
            ("--physical", self.physical),
            ("--low-watermark", self.low_watermark),
            ("--high-watermark", self.high_watermark),
        ];
        let sizes = sizes.into_iter().flat_map(|(flag, bytes)| [flag.to_owned(), exact_bytes(bytes)]);
        ["--codec".to_owned(), self.codec.clone()].into_iter().chain(sizes).collect()
    }
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Logical bytes promised for each byte of media.
    pub overcommit: f64,
    /// Probability that a window overflows its share of the media, 0 to 1.
    pub probability_of_overflow: f64,
}
