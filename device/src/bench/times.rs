//! How long blocks take: a histogram that is exact to 1 %.

use hdrhistogram::Histogram;

use super::report::BlockTime;

/// Longer times, an hour and more, are counted as this. Nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// A histogram of times.
#[derive(Clone, Debug)]
pub(super) struct Times {
    histogram: Histogram<u64>,
    /// Nanoseconds in all.
    pub(super) total_ns: u64,
}

impl Times {
    /// An empty histogram.
    pub(super) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are in order, the digits at most 5");
        Self { histogram, total_ns: 0 }
    }

    /// Counts a block.
    pub(super) fn add(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
        self.total_ns = self.total_ns.saturating_add(ns);
    }

    /// Counts all that another has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.histogram += &other.histogram;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
    }

    /// Blocks counted.
    pub(super) fn blocks(&self) -> u64 {
        self.histogram.len()
    }

    /// Median and 99th percentile.
    pub(super) fn summary(&self) -> Option<BlockTime> {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        (self.blocks() > 0).then(|| BlockTime { median_ns: at(0.5), p99_ns: at(0.99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut times = Times::new();
        assert!(times.summary().is_none());
        for ns in 1..=100 {
            times.add(ns / 10);
        }
        let BlockTime { median_ns, p99_ns } = times.summary().unwrap();
        assert_eq!((median_ns, p99_ns), (5, 9));
    }

    #[test]
    fn a_time_of_any_length_is_counted_and_reported_to_1_percent() {
        for ns in [0, 1, 999, 123_456_789, LONGEST, u64::MAX] {
            let (mut times, mut other) = (Times::new(), Times::new());
            other.add(ns);
            times.merge(&other);
            assert_eq!((times.blocks(), times.total_ns), (1, ns));
            let (median, counted) = (times.summary().unwrap().median_ns, ns.min(LONGEST));
            assert!(median.abs_diff(counted) <= counted / 100, "{ns} is reported as {median}");
        }
    }
}
