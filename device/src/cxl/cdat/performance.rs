//! The memory's speed, as a CDAT can express it.

use std::str::FromStr;

/// The largest number of units in a structure: 65535 stands for "unreachable", 0 for "not given".
const MOST: u32 = 65_534;
/// MB/s in the larger unit of a bandwidth.
const GIGABYTE: u32 = 1000;

/// A figure for reads and one for writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadWrite<T> {
    /// For reads.
    pub read: T,
    /// For writes.
    pub write: T,
}

impl<T: FromStr + Copy> FromStr for ReadWrite<T> {
    type Err = String;

    /// One number for both, or two with a comma between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("'{text}' is not such a number"));
        let (read, write) = text.split_once(',').unwrap_or((text, text));
        Ok(Self { read: number(read)?, write: number(write)? })
    }
}

/// Latency and bandwidth of the memory as the device itself sees them: the link comes on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Performance {
    latency_ns: ReadWrite<u16>,
    bandwidth_mbs: ReadWrite<u32>,
}

/// Why a CDAT cannot express a figure.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PerformanceError {
    /// A latency out of range.
    #[error("--latency must be 1 to 65534 ns; {0} is not")]
    Latency(u16),
    /// A bandwidth out of range, or too fine for its size.
    #[error("--bandwidth must be 1 to 65534 MB/s, or a multiple of 1000 up to 65534000; {0} is not")]
    Bandwidth(u32),
}

impl Performance {
    /// Latency in nanoseconds, bandwidth in MB/s (10^6).
    ///
    /// # Errors
    /// A CDAT cannot express it.
    pub fn new(latency_ns: ReadWrite<u16>, bandwidth_mbs: ReadWrite<u32>) -> Result<Self, PerformanceError> {
        for latency in [latency_ns.read, latency_ns.write] {
            if !(1..=MOST).contains(&latency.into()) {
                return Err(PerformanceError::Latency(latency));
            }
        }
        for bandwidth in [bandwidth_mbs.read, bandwidth_mbs.write] {
            let whole = bandwidth.is_multiple_of(GIGABYTE) && (1..=MOST).contains(&(bandwidth / GIGABYTE));
            if !whole && !(1..=MOST).contains(&bandwidth) {
                return Err(PerformanceError::Bandwidth(bandwidth));
            }
        }
        Ok(Self { latency_ns, bandwidth_mbs })
    }

    /// Latency in nanoseconds.
    pub fn latency_ns(&self) -> ReadWrite<u16> {
        self.latency_ns
    }

    /// Bandwidth in MB/s.
    pub fn bandwidth_mbs(&self) -> ReadWrite<u32> {
        self.bandwidth_mbs
    }
}

impl Default for Performance {
    /// 250 ns reads, 300 ns writes, 16 GB/s each way: an expander with inline compression, hits and misses averaged.
    fn default() -> Self {
        Self {
            latency_ns: ReadWrite { read: 250, write: 300 },
            bandwidth_mbs: ReadWrite { read: 16_000, write: 16_000 },
        }
    }
}
