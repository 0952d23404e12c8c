//! Records a timeline while a story is told: steps and series as the story names them, the devices by samplers.

use std::{collections::BTreeMap, path::Path, time::Instant};

use super::{
    Mark, Timeline,
    sampler::Sampler,
    timeline::{MOST, halve},
};

/// A timeline in the making.
#[derive(Debug)]
pub(super) struct Recorder {
    begun: Instant,
    marks: Vec<Mark>,
    series: BTreeMap<String, Series>,
    samplers: Vec<Sampler>,
}

impl Default for Recorder {
    /// Time begins now.
    fn default() -> Self {
        Self { begun: Instant::now(), marks: Vec::new(), series: BTreeMap::new(), samplers: Vec::new() }
    }
}

impl Recorder {
    /// Samples one more device from now on, by its control socket.
    pub(super) fn watch(&mut self, control: &Path) {
        self.samplers.push(Sampler::start(control, self.begun));
    }

    /// A step begins now.
    pub(super) fn mark(&mut self, step: &str) {
        self.marks.push(Mark { at_ms: self.now(), step: step.to_owned() });
    }

    /// The step now.
    pub(super) fn step(&self) -> &str {
        self.marks.last().map_or("", |mark| &mark.step)
    }

    /// Notes a value of a series.
    pub(super) fn note(&mut self, series: &str, value: f64) {
        let now = self.now();
        self.series.entry(series.to_owned()).or_default().push(now, value);
    }

    /// Ends the samplers.
    pub(super) fn finish(self) -> Timeline {
        Timeline {
            marks: self.marks,
            devices: self.samplers.into_iter().map(Sampler::finish).collect(),
            series: self.series.into_iter().map(|(name, series)| (name, series.points)).collect(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Points of a series. Once it was full it takes only what is far enough from the last.
#[derive(Debug, Default)]
struct Series {
    points: Vec<(u64, f64)>,
    apart_ms: u64,
}

impl Series {
    fn push(&mut self, at_ms: u64, value: f64) {
        if let Some((last, latest)) = self.points.last_mut()
            && at_ms - *last < self.apart_ms
        {
            *latest = value;
            return;
        }
        if self.points.len() >= MOST {
            halve(&mut self.points);
            let span = self.points.last().zip(self.points.first()).map_or(0, |(last, first)| last.0 - first.0);
            self.apart_ms = span / (MOST as u64 / 2);
        }
        self.points.push((at_ms, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_bounded_and_keeps_its_beginning_and_its_end() {
        let mut series = Series::default();
        (0..100_000).for_each(|at| series.push(at * 10, at as f64));
        assert!((MOST / 2..=MOST).contains(&series.points.len()), "{}", series.points.len());
        assert_eq!(series.points[0], (0, 0.0));
        assert_eq!(series.points.last().unwrap().1, 99_999.0);
        assert!(series.points.is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn the_step_now_is_the_last_that_was_marked() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.step(), "");
        recorder.mark("create the region");
        recorder.mark("online it");
        assert_eq!(recorder.step(), "online it");
        recorder.note("pressure", 0.5);
        let timeline = recorder.finish();
        assert_eq!(timeline.marks.len(), 2);
        assert_eq!(timeline.series["pressure"].len(), 1);
    }
}
