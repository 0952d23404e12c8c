//! Which pages of a big input are measured: contiguous runs, spread evenly.

use std::ops::Range;

/// Pages in a run: 1 MiB, so that neighbours stay neighbours for the planner.
pub(super) const RUN_PAGES: u64 = 256;

/// xorshift64*: the same draws from the same seed, on every machine.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    /// Draws for this seed.
    pub(super) fn new(seed: u64) -> Self {
        // Never 0: xorshift would stay at 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed_5eed_5eed_5eed | 1)
    }

    /// A whole number below `end`; 0 if there is none.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(bits) * u128::from(end)) >> 64) as u64
    }
}

/// Ranges of about `wanted` of `total` pages, ascending and apart; all of them if that is no fewer.
///
/// The input is cut into equal shares, one a run, and each run lies at a random place of its share.
pub(super) fn runs(total: u64, wanted: u64, seed: u64) -> Vec<Range<u64>> {
    if wanted >= total {
        return if total == 0 { Vec::new() } else { std::iter::once(0..total).collect() };
    }
    let length = RUN_PAGES.min(wanted.max(1));
    let count = wanted.max(1).div_ceil(length);
    let mut draw = Draw::new(seed);
    let edge = |run: u64| (u128::from(total) * u128::from(run) / u128::from(count)) as u64;
    let mut left = wanted.max(1);
    (0..count)
        .map(|run| {
            let (start, end) = (edge(run), edge(run + 1));
            let length = length.min(left).min(end - start);
            left -= length;
            let from = start + draw.below(end - start - length + 1);
            from..from + length
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_ascending_apart_inside_and_as_many_pages_as_asked() {
        for (total, wanted) in [(1, 1), (1000, 1), (1000, 255), (1000, 256), (1000, 999), (1 << 40, 1 << 18), (7, 9)] {
            let runs = runs(total, wanted, 42);
            assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start), "{total} {wanted}");
            assert!(runs.iter().all(|run| run.start < run.end && run.end <= total), "{total} {wanted}");
            assert_eq!(runs.iter().map(|run| run.end - run.start).sum::<u64>(), wanted.min(total), "{total} {wanted}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        assert_eq!(runs(1 << 30, 1 << 16, 1), runs(1 << 30, 1 << 16, 1));
        assert_ne!(runs(1 << 30, 1 << 16, 1), runs(1 << 30, 1 << 16, 2));
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(runs(0, 100, 1).is_empty());
    }
}
