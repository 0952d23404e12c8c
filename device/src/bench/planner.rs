//! The planner: how much capacity a device could promise for data like the data measured.
//!
//! The guest's data is taken as windows of W MiB. A device that promises `r` bytes for each byte of media has `1 / r` byte of
//! media for each byte of a window; a window whose footprint is larger *overflows* its share. The promise is the largest
//! `r` at which a window overflows with the probability asked for, or less.
//!
//! How windows differ is drawn from the runs that were measured (the block bootstrap): a window is put together from
//! stretches of neighbouring runs, as they came, so that data which is alike in one place stays together. Below the
//! probabilities that so many draws can show, a normal tail goes on from there. `docs/bench.md` has the formulae.

use super::measure::{Config, Run};
use super::report::{CurvePoint, Plan};
use super::sample::Draw;
use super::{BenchArgs, packing};

const MIB: f64 = 1_048_576.0;
/// An HDM is a multiple of this.
const GRANULE: u64 = 256 << 20;
/// Windows drawn.
const WINDOWS: usize = 20_000;
/// An empirical probability rests on at least this many of them.
const WITNESSES: usize = 20;
/// Stretches of runs that are drawn, all windows together, at most: a bound on the time.
const DRAWS: usize = 20_000_000;
/// Points of the curve.
const POINTS: u32 = 49;
/// With fewer runs than this the plan is called weak.
const FEW_RUNS: usize = 64;

/// Footprints of windows, per logical byte.
struct Windows {
    /// Drawn, ascending.
    drawn: Vec<f64>,
    deviation: f64,
    /// No window can take more: every block raw.
    most: f64,
}

impl Windows {
    fn draw(runs: &[f64], per_window: usize, stretch: usize, most: f64, seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let stretches = per_window.div_ceil(stretch);
        let windows = WINDOWS.min(DRAWS / stretches).max(1000);
        // Sums of the runs before each place, twice around, so that a stretch is one subtraction.
        let mut before = vec![0.0];
        for run in runs.iter().chain(runs) {
            before.push(before[before.len() - 1] + run);
        }
        let mut drawn: Vec<f64> = (0..windows)
            .map(|_| {
                let (mut left, mut sum) = (per_window, 0.0);
                while left > 0 {
                    let length = stretch.min(left);
                    let from = draw.below(runs.len() as u64) as usize;
                    sum += before[from + length] - before[from];
                    left -= length;
                }
                (sum / per_window as f64).min(most)
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|window| (window - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        Self { drawn, deviation: variance.sqrt(), most }
    }

    /// The least probability that the drawn windows show by themselves.
    fn shown(&self) -> f64 {
        WITNESSES as f64 / self.drawn.len() as f64
    }

    /// The footprint that a window exceeds with this probability at most.
    fn quantile(&self, odds: f64) -> f64 {
        let shown = self.shown();
        let beyond = (odds.max(shown) * self.drawn.len() as f64).floor() as usize;
        let edge = self.drawn[self.drawn.len().saturating_sub(beyond + 1)];
        let tail = if odds < shown { self.deviation * (upper_normal(odds) - upper_normal(shown)) } else { 0.0 };
        (edge + tail).min(self.most)
    }

    /// The probability that a window's footprint exceeds this.
    fn exceeds(&self, footprint: f64) -> f64 {
        if footprint >= self.most {
            return 0.0;
        }
        let beyond = self.drawn.len() - self.drawn.partition_point(|window| *window <= footprint);
        if beyond >= WITNESSES {
            return beyond as f64 / self.drawn.len() as f64;
        }
        let (shown, edge) = (self.shown(), self.quantile(self.shown()));
        if self.deviation < 1e-12 {
            return if footprint >= edge { 0.0 } else { shown };
        }
        normal_beyond(upper_normal(shown) + (footprint - edge).max(0.0) / self.deviation).min(shown)
    }
}

/// Plans for the runs of one config, in the order of the input. None if there are none. `correction` is what the real
/// store takes over what the rule says; `sampled`, whether runs that follow each other are not neighbours.
pub(super) fn plan(args: &BenchArgs, config: Config, runs: &[Run], correction: f64, sampled: bool) -> Option<Plan> {
    if runs.is_empty() {
        return None;
    }
    let footprints: Vec<f64> = runs.iter().map(|run| run.footprint * correction).collect();
    let mean = footprints.iter().sum::<f64>() / footprints.len() as f64;
    // Every block raw: slot, back-pointer and map entry.
    let most = packing::share(Some(config.block_size)) as f64 / config.block_size as f64 * correction.max(1.0);
    let per_window = usize::try_from(args.window).unwrap_or(usize::MAX);
    let stretch = footprints.len().isqrt().clamp(1, per_window);
    let windows = Windows::draw(&footprints, per_window, stretch, most, args.seed);

    let seconds = |ms: u64| ms as f64 / 1000.0;
    let low = bytes(args.write_rate * MIB * seconds(args.reaction) * most).min(args.physical);
    let high = low.saturating_add(bytes(args.reclaim_rate * MIB * seconds(args.hysteresis) * mean)).min(args.physical);
    let footprint = windows.quantile(args.odds);
    let overcommit = 1.0 / footprint;
    let capacity = bytes((args.physical - low) as f64 * overcommit);
    Some(Plan {
        codec: config.codec.to_string(),
        block_size: config.block_size as u64,
        physical: args.physical,
        window_mib: args.window,
        odds: args.odds,
        assumptions: assumptions(args, &windows, footprints.len(), stretch, low, sampled),
        curve: curve(&windows),
        capacity: if capacity >= GRANULE { capacity / GRANULE * GRANULE } else { capacity },
        overcommit,
        runs: footprints.len() as u64,
        mean_footprint: mean,
        window_deviation: windows.deviation,
        write_mib_s: args.write_rate,
        reclaim_mib_s: args.reclaim_rate,
        reaction_ms: args.reaction,
        hysteresis_ms: args.hysteresis,
        low_watermark: low,
        high_watermark: high,
    })
}

/// From where nearly every window overflows to where none can, evenly in footprint.
fn curve(windows: &Windows) -> Vec<CurvePoint> {
    let tightest = windows.quantile(1e-9).max(windows.drawn[windows.drawn.len() - 1]);
    let loosest = windows.drawn[windows.drawn.len() / 100];
    // A little past both, so that a plan without any variance has a curve as well.
    let (from, to) = ((tightest * 1.01).min(windows.most), loosest * 0.99);
    (0..POINTS)
        .map(|point| {
            let footprint = from + (to - from) * f64::from(point) / f64::from(POINTS - 1);
            CurvePoint { overcommit: 1.0 / footprint, probability_of_overflow: windows.exceeds(footprint) }
        })
        .collect()
}

fn assumptions(
    args: &BenchArgs,
    windows: &Windows,
    runs: usize,
    stretch: usize,
    low: u64,
    sampled: bool,
) -> Vec<String> {
    let mut list = vec![
        "What the guest will demote compresses like the data measured, in the same mix.".into(),
        format!(
            "A window is {} MiB; it may take its share of the media, physical without the low watermark, and no more.",
            args.window
        ),
        format!(
            "Neighbouring data is alike: windows are drawn {} times from stretches of {stretch} MiB as they came.",
            windows.drawn.len()
        ),
    ];
    if sampled {
        list.push(
            "Optimistic: of a sample only each MiB is in one piece, so windows look more mixed than they are; use --all."
                .into(),
        );
    }
    if args.odds < windows.shown() {
        list.push(format!(
            "Fewer than one window in {:.0} is beyond what the draws show: the tail from there is taken as normal.",
            1.0 / windows.shown()
        ));
    }
    list.push("Fragmentation stays as the store's compaction keeps it; after much overwriting allow 3 % more.".into());
    list.push(format!(
        "From the low crossing until the guest stops demoting, {} ms pass, and what it writes then does not shrink.",
        args.reaction
    ));
    if runs < FEW_RUNS || runs < 4 * args.window as usize {
        list.push(format!(
            "Weak: only {runs} MiB were measured, {:.1} windows; measure at least 4 windows and {FEW_RUNS} MiB.",
            runs as f64 / args.window as f64
        ));
    }
    if low >= args.physical {
        list.push(
            "Impossible: the low watermark leaves no media; more media, slower demotion or a quicker reaction.".into(),
        );
    }
    list
}

fn bytes(value: f64) -> u64 {
    // `as` saturates, and makes 0 of what is no number.
    value.floor() as u64
}

/// The probability that a standard normal variable exceeds `z`, for `z >= 0`, to 1e-7 relative: a continued fraction
/// (Abramowitz and Stegun 26.2.14) where it converges well, else the Taylor series of the distribution.
fn normal_beyond(z: f64) -> f64 {
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z < 3.0 {
        let (mut term, mut sum, mut n) = (z, z, 1.0);
        while term > 1e-17 {
            n += 2.0;
            term *= z * z / n;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let fraction = (1..=60).rev().fold(z, |below, n| z + f64::from(n) / below);
    density / fraction
}

/// The inverse, for probabilities up to one half.
fn upper_normal(odds: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if normal_beyond(middle) > odds { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
