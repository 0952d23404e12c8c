//! How long blocks take: a histogram with 16 steps a power of two, exact to about 6 % at any length.

use super::report::BlockTime;

const STEPS: usize = 16;

/// Times counted.
#[derive(Clone, Debug)]
pub(super) struct Times {
    counts: Vec<u64>,
    /// Blocks.
    pub(super) blocks: u64,
    /// Nanoseconds in all.
    pub(super) total_ns: u64,
}

impl Times {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { counts: vec![0; (64 - 3) * STEPS], blocks: 0, total_ns: 0 }
    }

    /// Counts a block.
    pub(super) fn add(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.blocks += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
    }

    /// Counts all that another has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.blocks += other.blocks;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
    }

    /// Median and 99th percentile.
    pub(super) fn summary(&self) -> Option<BlockTime> {
        Some(BlockTime { median_ns: self.percentile(50)?, p99_ns: self.percentile(99)? })
    }

    fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (u128::from(self.blocks) * u128::from(percent)).div_ceil(100) as u64;
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        })?;
        Some(last_of(at))
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() as usize - 4;
    shift * STEPS + (ns >> shift) as usize
}

/// The longest time of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let first = ((bucket % STEPS + STEPS) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket_that_names_it_to_6_percent() {
        for ns in (0..10_000).chain([1 << 20, (1 << 33) - 1, u64::MAX / 3, u64::MAX]) {
            let last = last_of(bucket(ns));
            assert!(ns <= last && last - ns <= ns / 16, "{ns} is said to be {last}");
        }
    }

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
}
