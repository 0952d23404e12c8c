//! MSI-X vectors and their sources.

/// Vectors the function has; Linux asks for up to 16.
pub const COUNT: u16 = 16;

/// A data object is ready, or the DOE instance met an error.
pub const DOE: u16 = 0;
/// Event log: information.
pub const EVENT_INFORMATION: u16 = 2;
/// Event log: warning.
pub const EVENT_WARNING: u16 = 3;
/// Event log: failure.
pub const EVENT_FAILURE: u16 = 4;
/// Event log: fatal.
pub const EVENT_FATAL: u16 = 5;
/// Primary mailbox: a background command has ended.
pub const MAILBOX: u16 = 7;
/// Free media fell below the low watermark ("lthresh" of the compressed-RAM driver).
pub const LOW_THRESHOLD: u16 = 12;
/// Free media rose above the high watermark ("hthresh").
pub const HIGH_THRESHOLD: u16 = 13;
