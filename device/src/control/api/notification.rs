//! Notifications: events that the device sends without a request.

use serde::{Deserialize, Serialize};

/// An event and its time. Every client that has negotiated receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The event: the members `event` and `data`.
    #[serde(flatten)]
    pub event: Event,
    /// The time by the device's clock. If several became one event, the time of the first.
    pub timestamp: Timestamp,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
pub enum Event {
    /// Free media fell below the low watermark.
    #[serde(rename = "CXL_CRAM_LOW_WATERMARK")]
    LowWatermark {},
    /// Free media rose above the high watermark after that.
    #[serde(rename = "CXL_CRAM_HIGH_WATERMARK")]
    HighWatermark {},
    /// Blocks no longer fitted and were poisoned.
    #[serde(rename = "CXL_CRAM_OVERFLOW")]
    Overflow {
        /// First byte (DPA) of the first block.
        dpa: u64,
        /// Blocks lost since the event before; they need not be neighbours.
        blocks: u64,
    },
    /// Poisoned lines were loaded through the window.
    #[serde(rename = "CXL_CRAM_POISON_READ")]
    PoisonRead {
        /// First byte (DPA) of the first line.
        dpa: u64,
        /// Bytes to the end of the last line; the lines between need not be poisoned.
        length: u64,
    },
}

/// Time since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: u64,
    /// The rest.
    pub microseconds: u32,
}
