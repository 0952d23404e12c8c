//! `query-status` and its answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::argument;

/// Returns the medium's occupancy and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryStatus {
    /// Flush the window first, so that the figures are exact for everything the guest stored before, or as near to that as
    /// two seconds allow. Without a flush the reading disturbs nothing and lags by the data that is dirty in the window.
    #[serde(default = "flush", deserialize_with = "argument::true_or_false")]
    pub flush: bool,
}
super::command!(QueryStatus, "query-status" => Status);

fn flush() -> bool {
    true
}

impl Default for QueryStatus {
    fn default() -> Self {
        Self { flush: flush() }
    }
}

/// The medium's occupancy and settings. In bytes, unless a member is documented otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// A vfio-user client has negotiated and is served.
    pub client_connected: bool,
    /// How guest accesses reach the medium: `fuse` or `trap`.
    pub window: String,
    /// How blocks are compressed, as `serve --codec` takes it.
    pub codec: String,
    /// HDM promised to the guest.
    pub capacity: u64,
    /// Media that exists.
    pub physical: u64,
    /// Media taken. Exceeds `physical` only after `set-physical` shrank it.
    pub used: u64,
    /// Media that is left.
    pub free: u64,
    /// Free media at which the low watermark is crossed.
    pub low_watermark: u64,
    /// Free media at which the high watermark is crossed.
    pub high_watermark: u64,
    /// Between a low crossing and the high crossing that follows.
    pub blocked: bool,
    /// Crossings since the start.
    pub crossings: Crossings,
    /// How often each MSI-X vector was signalled since the start; vectors that never were are left out.
    pub interrupts: BTreeMap<u32, u64>,
    /// What the guest has stored, before compression.
    pub logical: u64,
    /// Compressed payload.
    pub data: u64,
    /// Host memory of the block map and the slabs. Not media.
    pub metadata: u64,
    /// `logical / data`, to two decimals; None while either is 0.
    pub data_ratio: Option<f64>,
    /// `logical / (used + metadata)`, likewise.
    pub effective_ratio: Option<f64>,
    /// Blocks by how they are kept.
    pub blocks: Blocks,
    /// Blocks that recompression has changed to the stronger codec since the start.
    pub recompressed_blocks: u64,
    /// Bytes by which recompression has shortened blocks since the start.
    pub recompressed_saved: u64,
    /// Poisoned now.
    pub poisoned: u64,
    /// Blocks lost because they no longer fitted, since the medium was last cleared.
    pub overflows: u64,
    /// Stored by the guest, but not in these figures yet. 0 if they are exact.
    pub lag: u64,
    /// The window's residency and counters.
    pub resident: Resident,
}

/// How often each watermark was crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossings {
    /// Free media fell below the low watermark.
    pub low: u64,
    /// Free media rose above the high watermark after that.
    pub high: u64,
}

/// Blocks of 4 KiB by how they are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Blocks {
    /// Compressed.
    pub compressed: u64,
    /// As they are, because they do not shrink.
    pub raw: u64,
    /// One repeated word; they take no media.
    pub same_filled: u64,
}

/// The data that the window holds outside the medium, and its counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Resident {
    /// Decompressed bytes held.
    pub bytes: u64,
    /// The bound on them.
    pub bound: u64,
    /// Pages faulted.
    pub faults: u64,
    /// Pages loaded before the guest asked for them.
    pub prefetched: u64,
    /// Those among them that the guest is known to have come to.
    pub prefetched_used: u64,
    /// Pages written back.
    pub written_back: u64,
    /// Pages evicted.
    pub evicted: u64,
}
