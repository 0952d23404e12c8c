//! Records a timeline while a scenario runs: steps and series as the scenario names them, the devices by samplers.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Result;

use super::follower::Follower;
use super::sampler::Sampler;
use super::timeline::{MOST, Mark, Timeline, halve};

/// Series by their names.
pub(crate) type AllSeries = BTreeMap<String, Series>;

/// A timeline under construction.
#[derive(Debug)]
pub(crate) struct Recorder {
    begun: Instant,
    acts: Vec<Mark>,
    marks: Vec<Mark>,
    series: Arc<Mutex<AllSeries>>,
    samplers: Vec<Sampler>,
    /// By the name of their source.
    followers: BTreeMap<String, Follower>,
}

impl Default for Recorder {
    /// A timeline that begins now.
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            acts: Vec::new(),
            marks: Vec::new(),
            series: Arc::default(),
            samplers: Vec::new(),
            followers: BTreeMap::new(),
        }
    }
}

impl Recorder {
    /// Samples one more device from now on, by its control socket.
    pub(crate) fn watch(&mut self, control: &Path) {
        self.samplers.push(Sampler::start(control, self.begun));
    }

    /// Reads figures periodically on a thread of its own until the scenario has ended. A source that is already followed is not
    /// followed twice.
    pub(crate) fn follow(&mut self, what: &str, read: impl FnMut() -> Result<Vec<(String, f64)>> + Send + 'static) {
        let start = || Follower::start(self.begun, Arc::clone(&self.series), read);
        self.followers.entry(what.to_owned()).or_insert_with(start);
    }

    /// Begins an act.
    pub(crate) fn act(&mut self, act: &str) {
        self.acts.push(Mark { at_ms: elapsed_ms(self.begun), step: act.to_owned() });
    }

    /// Begins a step.
    pub(crate) fn mark(&mut self, step: &str) {
        self.marks.push(Mark { at_ms: elapsed_ms(self.begun), step: step.to_owned() });
    }

    /// The current step.
    pub(crate) fn step(&self) -> &str {
        self.marks.last().map_or("", |mark| &mark.step)
    }

    /// Adds a value to a series.
    pub(crate) fn note(&mut self, series: &str, value: f64) {
        let now = elapsed_ms(self.begun);
        self.series().entry(series.to_owned()).or_default().push(now, value);
    }

    /// Ends the samplers and the followers.
    pub(crate) fn finish(mut self) -> Timeline {
        self.followers.clear();
        let series = std::mem::take(&mut *self.series());
        Timeline {
            acts: self.acts,
            marks: self.marks,
            devices: self.samplers.into_iter().map(Sampler::finish).collect(),
            series: series.into_iter().map(|(name, series)| (name, series.points)).collect(),
        }
    }

    fn series(&self) -> MutexGuard<'_, AllSeries> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since a moment.
pub(crate) fn elapsed_ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Points of a series. Once full, it takes only points far enough from the last.
#[derive(Debug, Default)]
pub(crate) struct Series {
    points: Vec<(u64, f64)>,
    apart_ms: u64,
}

impl Series {
    /// Adds a point. Two threads that add to the same series may do so out of order.
    pub(crate) fn push(&mut self, at_ms: u64, value: f64) {
        let at_ms = self.points.last().map_or(at_ms, |(last, _)| at_ms.max(*last));
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
        recorder.act("the second part");
        let timeline = recorder.finish();
        assert_eq!((timeline.marks.len(), timeline.acts.len()), (2, 1));
        assert_eq!(timeline.series["pressure"].len(), 1);
    }

    #[test]
    fn what_is_followed_is_noted_by_name_and_a_failure_leaves_a_gap() {
        let mut recorder = Recorder::default();
        let (called, calls) = std::sync::mpsc::channel();
        let mut times = 0;
        recorder.follow("pressure", move || {
            times += 1;
            let _ = called.send(());
            if times == 2 { anyhow::bail!("gone") } else { Ok(vec![("a".to_owned(), f64::from(times))]) }
        });
        (0..3).for_each(|_| calls.recv().unwrap());
        let timeline = recorder.finish();
        let values: Vec<_> = timeline.series["a"].iter().map(|(_, value)| *value).collect();
        assert_eq!(values[..2], [1.0, 3.0]);
        assert!(values.is_sorted() && calls.iter().count() >= 1, "it reads once more when the story ends");
    }
}
