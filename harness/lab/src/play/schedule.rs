//! Runs several scenarios at once, within the machine's processors and memory.

use std::{
    cmp::Reverse,
    fs,
    num::NonZero,
    ops::ControlFlow,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::runner;
use super::runner::RunOptions;
use crate::lab::scenario::Scenario;
use crate::process::interrupt::interrupted;
use crate::provision::Provisioned;
use crate::report::{Outcome, Verdict};
use crate::rig::stage::Overrides;

/// Host memory that a lab takes besides guest memory, media and cache: QEMU, the device, the kernel.
const OVERHEAD: u64 = 256 << 20;
/// The share of free memory that labs may take, in percent.
const SHARE: u64 = 80;
/// How many guest processors keep one host processor busy. Measured over the catalog, a guest of two takes one: a boot is
/// mostly sequential, and the guest waits while the harness and the device work.
const GUEST_PROCESSORS: u64 = 2;

/// Host processors and bytes of host memory, available or required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resources {
    processors: u64,
    memory: u64,
}

impl Resources {
    /// What this machine offers: all processors, and most of the memory that is free now. With `jobs`, enough processors
    /// for that many default guests, whatever the machine has.
    fn of_machine(jobs: Option<NonZero<usize>>) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let processors = match jobs {
            Some(jobs) => jobs.get() as u64 * busy(Scenario::USUAL.machine.processors),
            None => processors as u64,
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { processors, memory: available(&meminfo).unwrap_or(0) / 100 * SHARE }
    }

    /// What a scenario requires.
    fn of(scenario: &Scenario, overrides: &Overrides) -> Self {
        let devices: u64 = scenario.devices.iter().map(|device| device.physical + device.cache).sum();
        Self {
            processors: busy(overrides.processors.unwrap_or(scenario.machine.processors)),
            memory: overrides.memory.unwrap_or(scenario.machine.memory_mib << 20) + devices + OVERHEAD,
        }
    }

    fn holds(self, other: Self) -> bool {
        self.processors >= other.processors && self.memory >= other.memory
    }

    fn minus(self, other: Self) -> Self {
        Self {
            processors: self.processors.saturating_sub(other.processors),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { processors: self.processors + other.processors, memory: self.memory + other.memory }
    }
}

/// How many host processors a guest keeps busy.
fn busy(guest_processors: u32) -> u64 {
    u64::from(guest_processors).div_ceil(GUEST_PROCESSORS)
}

/// Host memory that a default scenario takes, and how much is free, in bytes.
pub fn usual_memory() -> (u64, u64) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (Resources::of(&Scenario::USUAL, &Overrides::default()).memory, available(&meminfo).unwrap_or(0))
}

/// `MemAvailable`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// The order in which to start scenarios. One at a time, they keep their order. In parallel, the shortest limit goes first,
/// so that a result appears soon, then the longest ones, so that none of them runs alone at the end.
fn in_order(scenarios: &[&'static Scenario], room: Resources) -> Vec<&'static Scenario> {
    let mut order = scenarios.to_vec();
    if room.processors >= 2 * busy(Scenario::USUAL.machine.processors) {
        order.sort_by_key(|scenario| Reverse(scenario.limit));
        if let Some(shortest) = order.pop() {
            order.insert(0, shortest);
        }
    }
    order
}

/// Runs scenarios, as many at once as there is room for, and passes each outcome to `ended` as it arrives. A scenario that
/// requires more than the machine has runs alone. Starts no scenario after an interruption, or after `ended` breaks.
pub fn play_all(
    scenarios: &[&'static Scenario],
    provisioned: &Provisioned,
    options: &RunOptions,
    progress: &MultiProgress,
    mut ended: impl FnMut(&Outcome) -> ControlFlow<()>,
) -> Vec<Outcome> {
    let mut room = Resources::of_machine(options.jobs);
    let mut waiting = in_order(scenarios, room);
    let mut outcomes = Vec::new();
    let overview = Overview::new(scenarios, progress);
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        let mut playing = 0;
        loop {
            let fits = |scenario: &&Scenario| playing == 0 || room.holds(Resources::of(scenario, &options.overrides));
            if !interrupted()
                && let Some(next) = waiting.iter().position(fits)
            {
                let scenario = waiting.remove(next);
                let taken = Resources::of(scenario, &options.overrides);
                room = room.minus(taken);
                playing += 1;
                let played = done.clone();
                let play = move || {
                    // The receiver outlives every sender.
                    let _ = played.send((runner::play(scenario, provisioned, options, progress), taken));
                };
                let thread = thread::Builder::new().name(scenario.name.into());
                if let Err(error) = thread.spawn_scoped(scope, play) {
                    let verdict = Verdict::Failed(format!("cannot start a thread for it: {error}"));
                    let outcome = Outcome { verdict, host_at_fault: true, ..Outcome::of(scenario) };
                    let _ = done.send((outcome, taken));
                }
                continue;
            }
            if playing == 0 {
                break;
            }
            let Ok((outcome, taken)) = is_done.recv() else { break };
            room = room.plus(taken);
            playing -= 1;
            if ended(&outcome).is_break() {
                waiting.clear();
            }
            outcomes.push(outcome);
            overview.ended(outcomes.iter().map(|outcome| outcome.name.as_str()));
        }
    });
    outcomes
}

/// The line below the scenarios' spinners: how many have ended, and about how much time is left.
struct Overview<'a> {
    bar: ProgressBar,
    scenarios: &'a [&'static Scenario],
    begun: Instant,
}

impl<'a> Overview<'a> {
    fn new(scenarios: &'a [&'static Scenario], progress: &MultiProgress) -> Self {
        let bar = progress.add(ProgressBar::new(scenarios.len() as u64));
        bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or(ProgressStyle::default_spinner()));
        let overview = Self { bar, scenarios, begun: Instant::now() };
        overview.ended([]);
        overview
    }

    /// Shows that these have ended.
    fn ended<'b>(&self, names: impl IntoIterator<Item = &'b str>) {
        let names: Vec<_> = names.into_iter().collect();
        let limits = |scenarios: &mut dyn Iterator<Item = &&'static Scenario>| -> Duration {
            scenarios.map(|scenario| scenario.limit).sum()
        };
        let done = limits(&mut self.scenarios.iter().filter(|scenario| names.contains(&scenario.name)));
        let all = limits(&mut self.scenarios.iter());
        let left = left(self.begun.elapsed(), done, all).map(|left| format!(", {left}")).unwrap_or_default();
        self.bar.set_message(format!("{}/{} ended{left}", names.len(), self.scenarios.len()));
    }
}

impl Drop for Overview<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// About how much time is left, by the limits of the scenarios that have ended and of all. None at the beginning.
fn left(elapsed: Duration, done: Duration, all: Duration) -> Option<String> {
    if done.is_zero() || done >= all {
        return None;
    }
    let left = elapsed.as_secs_f64() * (all.as_secs_f64() / done.as_secs_f64() - 1.0);
    Some(match (left / 60.0).round() {
        minutes if minutes >= 2.0 => format!("about {minutes} minutes left"),
        _ => format!("about {} s left", (left / 10.0).ceil() * 10.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal: 100 kB\nMemAvailable:     42 kB\n"), Some(42 << 10));
        assert_eq!(available("MemTotal: 100 kB\n"), None);
    }

    #[test]
    fn a_scenario_requires_guest_memory_media_and_cache() {
        let usual = Resources::of(&Scenario::USUAL, &Overrides::default());
        assert_eq!(usual, Resources { processors: 1, memory: (1024 + 256 + 64 + 256) << 20 });
        let small = Resources { processors: 1, memory: 1 << 30 };
        assert!(!small.holds(usual));
        assert!(small.plus(usual).minus(usual).plus(usual).holds(usual));
    }

    #[test]
    fn in_parallel_the_shortest_goes_first_and_then_the_longest() {
        const LIMITS: [u64; 4] = [2, 1, 3, 4];
        static SCENARIOS: [Scenario; 4] = {
            let mut scenarios = [Scenario::USUAL; 4];
            let mut index = 0;
            while index < 4 {
                scenarios[index].limit = std::time::Duration::from_secs(LIMITS[index]);
                index += 1;
            }
            scenarios
        };
        let scenarios: Vec<_> = SCENARIOS.iter().collect();
        let limits = |processors| -> Vec<u64> {
            in_order(&scenarios, Resources { processors, memory: 0 })
                .iter()
                .map(|scenario| scenario.limit.as_secs())
                .collect()
        };
        assert_eq!(limits(1), [2, 1, 3, 4]);
        assert_eq!(limits(2), [1, 4, 3, 2]);
    }

    #[test]
    fn the_time_left_is_estimated_from_the_limits() {
        let left = |elapsed, done, all| {
            left(Duration::from_secs(elapsed), Duration::from_secs(done), Duration::from_secs(all))
        };
        assert_eq!(left(3, 0, 600), None);
        assert_eq!(left(30, 60, 600).as_deref(), Some("about 5 minutes left"));
        assert_eq!(left(30, 300, 600).as_deref(), Some("about 30 s left"));
        assert_eq!(left(60, 600, 600), None);
    }

    #[test]
    fn jobs_count_default_guests() {
        assert_eq!(Resources::of_machine(NonZero::new(3)).processors, 3);
    }
}
