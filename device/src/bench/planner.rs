//! The planner: how much capacity a device could promise for data like the data measured.
//!
//! The guest's data is taken as windows of W MiB. A device that promises `r` bytes for each byte of media has `1 / r` byte of
//! media for each byte of a window; a window whose footprint is larger *overflows* its share. The promise is the largest
//! `r` at which a window overflows with the probability asked for, or less.
//!
//! How windows differ is drawn from the runs that were measured (the block bootstrap): a window is put together from
//! stretches of neighbouring runs, as they came, so that data which is alike in one place stays together. Below the
//! probabilities that so many draws can show, a normal tail continues from there. `docs/bench.md` has the formulae.

use super::measure::{Config, Run};
use super::report::{CurvePoint, Plan};
use super::sample::Draw;
use super::{PAGE, packing};
use crate::shape::{CAPACITY_MAX, CAPACITY_UNIT};
use cxl_cram_kit::size::format_bytes;

const MIB: f64 = 1_048_576.0;
/// Windows drawn.
const WINDOWS: usize = 20_000;
/// An empirical probability rests on at least this many of them.
const WITNESSES: usize = 20;
/// Stretches of runs that are drawn, all windows together, at most: a bound on the time.
const DRAWS: usize = 20_000_000;
/// Points of the curve.
const POINTS: u32 = 49;
/// With fewer runs than this, 1 MiB each, there is no plan: how windows differ would be off by a tenth and more.
const MIN_RUNS: usize = 64;
/// With fewer windows than this the plan is called weak.
const FEW_WINDOWS: usize = 4;

/// What is planned for: the media that the device has, and how the guest uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Media that the device has, bytes.
    pub(super) physical: u64,
    /// Size of a window of the guest's data, MiB.
    pub(super) window: u64,
    /// How likely a window may overflow its share of the media.
    pub(super) odds: f64,
    /// How fast the guest demotes, MiB per second.
    pub(super) write_rate: f64,
    /// How fast the guest reclaims, MiB per second.
    pub(super) reclaim_rate: f64,
    /// From the low crossing to the last demoted byte, milliseconds.
    pub(super) reaction: u64,
    /// Shortest time from a low crossing to the high one, milliseconds.
    pub(super) hysteresis: u64,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum NoPlan {
    /// It would be a guess.
    #[error("too little data: {} measured, and a plan takes at least {MIN_RUNS} MiB", format_bytes(*.0))]
    TooLittle(u64),
    /// Demotion outruns the media.
    #[error(
        "the low watermark, {} for {write} MiB/s that do not shrink in {reaction} ms, leaves nothing of {} of media; give more \
         --physical, or a smaller --write-rate or --reaction",
        format_bytes(*low), format_bytes(*physical)
    )]
    LowWatermark { low: u64, physical: u64, write: f64, reaction: u64 },
    /// Reclaim frees nothing.
    #[error(
        "reclaim frees nothing at {reclaim} MiB/s in {hysteresis} ms, so no high watermark is above the low one; give a larger \
         --reclaim-rate and --hysteresis"
    )]
    NoReclaim { reclaim: f64, hysteresis: u64 },
    /// Reclaim would have to free all.
    #[error(
        "the high watermark, {} for {reclaim} MiB/s reclaimed in {hysteresis} ms, leaves nothing of {} of media; give more \
         --physical, or a smaller --reclaim-rate or --hysteresis",
        format_bytes(*high), format_bytes(*physical)
    )]
    HighWatermark { high: u64, physical: u64, reclaim: f64, hysteresis: u64 },
    /// Compression gains nothing.
    #[error(
        "{} of media could promise {} (overcommit {overcommit:.3} above a low watermark of {}), in steps of {}, which is less \
         than the media there is; it takes data that compresses better, or a smaller --write-rate or --reaction",
        format_bytes(*physical), format_bytes(*capacity), format_bytes(*low), format_bytes(CAPACITY_UNIT)
    )]
    NoGain { physical: u64, capacity: u64, overcommit: f64, low: u64 },
    /// Less than any device promises.
    #[error(
        "{} of media could promise {} (overcommit {overcommit:.3}), and a device has at least {}; give more --physical",
        format_bytes(*physical), format_bytes(*capacity), format_bytes(CAPACITY_UNIT)
    )]
    TooSmall { physical: u64, capacity: u64, overcommit: f64 },
}

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

/// What the data is that was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    /// How it was compressed.
    pub(super) config: Config,
    /// Its runs, in the order of the input.
    pub(super) runs: &'a [Run],
    /// Bytes of it.
    pub(super) bytes: u64,
    /// The real store's footprint divided by the rule's.
    pub(super) correction: f64,
    /// Whether it is a sample: runs that follow each other are then not neighbours.
    pub(super) sampled: bool,
}

/// Plans for the data measured. Windows are drawn from `seed`.
///
/// `serve` takes the flags of every plan.
pub(super) fn plan(goal: &Goal, measured: Measured<'_>, seed: u64) -> Result<Plan, NoPlan> {
    let Measured { config, runs, bytes: measured, correction, sampled } = measured;
    if runs.len() < MIN_RUNS {
        return Err(NoPlan::TooLittle(measured));
    }
    let footprints: Vec<f64> = runs.iter().map(|run| run.footprint * correction).collect();
    let mean = footprints.iter().sum::<f64>() / footprints.len() as f64;
    // Every block raw: slot, back-pointer and map entry.
    let most = packing::share(Some(config.block_size)) as f64 / config.block_size as f64 * correction.max(1.0);
    let per_window = usize::try_from(goal.window).unwrap_or(usize::MAX);
    let stretch = footprints.len().isqrt().clamp(1, per_window);
    let windows = Windows::draw(&footprints, per_window, stretch, most, seed);

    let (low, high) = watermarks(goal, mean, most)?;
    let overcommit = 1.0 / windows.quantile(goal.odds);
    let allowed = bytes((goal.physical - low) as f64 * overcommit);
    let capacity = (allowed / CAPACITY_UNIT * CAPACITY_UNIT).min(CAPACITY_MAX);
    if (goal.physical..CAPACITY_UNIT).contains(&allowed) {
        return Err(NoPlan::TooSmall { physical: goal.physical, capacity: allowed, overcommit });
    }
    if capacity < goal.physical {
        return Err(NoPlan::NoGain { physical: goal.physical, capacity: allowed, overcommit, low });
    }
    let mut assumptions = assumptions(goal, &windows, footprints.len(), stretch, sampled);
    if allowed / CAPACITY_UNIT > capacity / CAPACITY_UNIT {
        assumptions.push(format!(
            "Capped: the data would allow {}, and no device promises more than {}.",
            format_bytes(allowed),
            format_bytes(CAPACITY_MAX)
        ));
    }
    Ok(Plan {
        codec: config.codec.to_string(),
        block_size: config.block_size as u64,
        physical: goal.physical,
        window_mib: goal.window,
        odds: goal.odds,
        assumptions,
        curve: curve(&windows),
        capacity,
        overcommit,
        runs: footprints.len() as u64,
        mean_footprint: mean,
        window_deviation: windows.deviation,
        write_mib_s: goal.write_rate,
        reclaim_mib_s: goal.reclaim_rate,
        reaction_ms: goal.reaction,
        hysteresis_ms: goal.hysteresis,
        low_watermark: low,
        high_watermark: high,
    })
}

/// Low and high, whole blocks of free media; as `serve` wants them, 0 <= low < high < physical.
fn watermarks(goal: &Goal, mean: f64, most: f64) -> Result<(u64, u64), NoPlan> {
    let &Goal { physical, write_rate: write, reaction, reclaim_rate: reclaim, hysteresis, .. } = goal;
    let blocks = |rate: f64, ms: u64, share: f64| {
        bytes((rate * MIB * ms as f64 / 1000.0 * share).ceil()).div_ceil(PAGE as u64).saturating_mul(PAGE as u64)
    };
    let low = blocks(write, reaction, most);
    if low >= physical {
        return Err(NoPlan::LowWatermark { low, physical, write, reaction });
    }
    let freed = blocks(reclaim, hysteresis, mean);
    if freed == 0 {
        return Err(NoPlan::NoReclaim { reclaim, hysteresis });
    }
    let high = low.saturating_add(freed);
    if high >= physical {
        return Err(NoPlan::HighWatermark { high, physical, reclaim, hysteresis });
    }
    Ok((low, high))
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

fn assumptions(goal: &Goal, windows: &Windows, runs: usize, stretch: usize, sampled: bool) -> Vec<String> {
    let mut list = vec![
        "What the guest will demote compresses like the data measured, in the same mix.".into(),
        format!(
            "A window is {} MiB; it may take its share of the media, physical without the low watermark, and no more.",
            goal.window
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
    if goal.odds < windows.shown() {
        list.push(format!(
            "Fewer than one window in {:.0} is beyond what the draws show: the tail from there is taken as normal.",
            1.0 / windows.shown()
        ));
    }
    list.push("Fragmentation stays as the store's compaction keeps it; after much overwriting allow 3 % more.".into());
    list.push(format!(
        "From the low crossing until the guest stops demoting, {} ms pass, and what it writes then does not shrink.",
        goal.reaction
    ));
    if runs < FEW_WINDOWS * goal.window as usize {
        list.push(format!(
            "Weak: only {runs} MiB were measured, {:.1} windows; measure at least {FEW_WINDOWS} windows.",
            runs as f64 / goal.window as f64
        ));
    }
    list
}

fn bytes(value: f64) -> u64 {
    // `as` saturates, and turns NaN into 0.
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
mod tests;
