//! How large a device can be: `serve` refuses any other, and the planner of `bench` plans none.

use cxl_cram_kit::size::{exact_bytes, format_bytes};

use crate::store::BLOCK_SIZE;

/// HDM is promised in these units: the granularity of HDM decoders and of Identify Memory Device.
pub const CAPACITY_UNIT: u64 = 256 << 20;

/// The largest capacity: what the store can number.
pub const CAPACITY_MAX: u64 = 8 << 40;

/// Why no device has this shape.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// No whole number of units, none, or too many.
    #[error(
        "--capacity must be {} to {}, in steps of {}; {} is not, {}",
        format_bytes(CAPACITY_UNIT), format_bytes(CAPACITY_MAX), format_bytes(CAPACITY_UNIT), plain(*.0),
        nearest(*.0, CAPACITY_UNIT, CAPACITY_MAX)
    )]
    Capacity(u64),
    /// No whole number of blocks, none, or more than is promised.
    #[error(
        "--physical must be {} to the capacity ({}), in steps of {}; {} is not, {}",
        format_bytes(BLOCK_SIZE as u64), format_bytes(*capacity), format_bytes(BLOCK_SIZE as u64), plain(*physical),
        nearest(*physical, BLOCK_SIZE as u64, *capacity)
    )]
    Physical {
        /// Media asked for, bytes.
        physical: u64,
        /// What is promised, bytes.
        capacity: u64,
    },
}

/// Whether a device can promise this capacity on this much media.
pub fn check(capacity: u64, physical: u64) -> Result<(), ShapeError> {
    if !fits(capacity, CAPACITY_UNIT, CAPACITY_MAX) {
        return Err(ShapeError::Capacity(capacity));
    }
    if !fits(physical, BLOCK_SIZE as u64, capacity) {
        return Err(ShapeError::Physical { physical, capacity });
    }
    Ok(())
}

fn fits(bytes: u64, step: u64, most: u64) -> bool {
    bytes != 0 && bytes.is_multiple_of(step) && bytes <= most
}

/// The size, and its bytes where the size alone looks as if it fitted: `953.7 MiB (1000000000 bytes)`.
fn plain(bytes: u64) -> String {
    match format_bytes(bytes) {
        short if short.contains('.') => format!("{short} ({bytes} bytes)"),
        short => short,
    }
}

/// The sizes to give instead.
fn nearest(bytes: u64, step: u64, most: u64) -> String {
    let below = (bytes / step * step).clamp(step, most);
    let above = below.saturating_add(step).min(most);
    if below > bytes || below == above || bytes > most {
        format!("give {}", exact_bytes(below))
    } else {
        format!("give {} or {}", exact_bytes(below), exact_bytes(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_a_whole_number_of_units_up_to_8_tib() {
        for capacity in [256 << 20, 1 << 30, 768 << 20, 8 << 40] {
            assert!(check(capacity, 4096).is_ok(), "{capacity}");
        }
        for (capacity, instead) in [
            (0, "0 B is not, give 256M"),
            (100 << 20, "100 MiB is not, give 256M"),
            (1_000_000_000, "953.7 MiB (1000000000 bytes) is not, give 768M or 1G"),
            ((8 << 40) + (256 << 20), "give 8T"),
            (u64::MAX, "give 8T"),
        ] {
            let error = check(capacity, 4096).unwrap_err().to_string();
            assert!(error.starts_with("--capacity must be 256 MiB to 8 TiB, in steps of 256 MiB"), "{error}");
            assert!(error.ends_with(instead), "{error}");
        }
    }

    #[test]
    fn media_is_a_whole_number_of_blocks_up_to_the_capacity() {
        assert!(check(1 << 30, 1 << 30).is_ok());
        for (physical, instead) in [
            (0, "0 B is not, give 4K"),
            (5000, "4.9 KiB (5000 bytes) is not, give 4K or 8K"),
            (2 << 30, "2 GiB is not, give 1G"),
        ] {
            let error = check(1 << 30, physical).unwrap_err().to_string();
            assert!(
                error.starts_with("--physical must be 4 KiB to the capacity (1 GiB), in steps of 4 KiB"),
                "{error}"
            );
            assert!(error.ends_with(instead), "{error}");
        }
    }
}
