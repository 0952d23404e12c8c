//! From values to pixels: linear and logarithmic scales with round ticks.

/// A scale from a range of values to a range of pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    log: bool,
    from: f64,
    to: f64,
    pixels: (f64, f64),
}

impl Scale {
    /// A linear scale. An empty or broken range is widened to one that can be drawn.
    pub fn linear(from: f64, to: f64, pixels: (f64, f64)) -> Self {
        let from = if from.is_finite() { from } else { 0.0 };
        let to = if to.is_finite() && to > from { to } else { from + 1.0 };
        Self { log: false, from, to, pixels }
    }

    /// A logarithmic scale; both ends must be above 0, else they are moved there.
    pub fn log(from: f64, to: f64, pixels: (f64, f64)) -> Self {
        let from = if from.is_finite() && from > 0.0 { from } else { 1e-9 };
        let to = if to.is_finite() && to > from { to } else { from * 10.0 };
        Self { log: true, from, to, pixels }
    }

    /// Where a value is drawn: at the nearer end when it lies outside.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let share = if self.log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Round values inside the scale, about `count` of them, at most a few more.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if self.log { self.log_ticks(count) } else { self.linear_ticks(count) }
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let step = round_step((self.to - self.from) / count.max(1) as f64);
        let (first, last) = ((self.from / step - 1e-9).ceil(), (self.to / step + 1e-9).floor());
        (0..=(last - first).max(0.0) as usize).take(100).map(|i| (first + i as f64) * step).collect()
    }

    /// Powers of ten, thinned when there are many, with 2 and 5 between them when there are few.
    fn log_ticks(&self, count: usize) -> Vec<f64> {
        let (low, high) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        let decades = usize::try_from(high - low).unwrap_or(0).max(1);
        let every = decades.div_ceil(count.max(1));
        let within: &[f64] = if decades <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        (low..=high)
            .filter(|power| power.rem_euclid(every as i32) == 0)
            .flat_map(|power| within.iter().map(move |m| m * 10f64.powi(power)))
            .filter(|v| *v >= self.from * (1.0 - 1e-9) && *v <= self.to * (1.0 + 1e-9))
            .collect()
    }
}

/// The next of 1, 2, 5, 10, 20, ... at or above `rough`.
fn round_step(rough: f64) -> f64 {
    if !rough.is_finite() || rough <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// The smallest round value at or above `value`, for the end of an axis.
pub fn round_up(value: f64, ticks: usize) -> f64 {
    let step = round_step(value / ticks.max(1) as f64);
    (value / step - 1e-9).ceil() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_inside() {
        assert_eq!(Scale::linear(0.0, 4.2, (0.0, 100.0)).ticks(4), [0.0, 2.0, 4.0]);
        assert_eq!(Scale::linear(0.0, 100.0, (0.0, 100.0)).ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Scale::linear(1.5, 3.1, (0.0, 100.0)).ticks(4), [1.5, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn logarithmic_ticks_are_thinned_when_there_are_many_decades() {
        assert_eq!(Scale::log(50.0, 600.0, (0.0, 1.0)).ticks(6), [50.0, 100.0, 200.0, 500.0]);
        let ticks = Scale::log(1e-12, 1.0, (0.0, 1.0)).ticks(6);
        assert!((4..=7).contains(&ticks.len()), "{ticks:?}");
    }

    #[test]
    fn values_outside_and_broken_ranges_are_still_drawn_inside() {
        for scale in [
            Scale::linear(0.0, 0.0, (10.0, 20.0)),
            Scale::linear(f64::NAN, f64::INFINITY, (10.0, 20.0)),
            Scale::log(0.0, -1.0, (10.0, 20.0)),
            Scale::log(f64::NAN, f64::NAN, (10.0, 20.0)),
        ] {
            for value in [-1.0, 0.0, 0.5, 1e300] {
                assert!((10.0..=20.0).contains(&scale.at(value)), "{scale:?} {value}");
            }
            assert!(scale.ticks(5).len() < 100);
        }
    }

    #[test]
    fn an_axis_ends_on_a_round_value_above_the_data() {
        assert_eq!(round_up(3.63, 4), 4.0);
        assert_eq!(round_up(4.0, 4), 4.0);
        assert_eq!(round_up(0.0, 4), 0.0);
        assert_eq!(round_up(41.0, 5), 50.0);
    }
}
