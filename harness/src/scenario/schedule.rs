//! Several scenarios at once, within the machine's processors and memory.

use std::{cmp::Reverse, fs, num::NonZero, ops::ControlFlow, sync::mpsc, thread};

use cxl_cram_device::size::parse_bytes;
use indicatif::MultiProgress;

use super::{
    Scenario,
    report::Outcome,
    runner::{self, RunOptions},
};
use crate::{interrupt::interrupted, provision::Provisioned};

/// Host memory that a lab takes beside guest memory, media and cache: QEMU, the device, the kernel's own.
const BESIDES: u64 = 256 << 20;
/// The share of free memory that labs may take, per cent.
const SHARE: u64 = 80;
/// Processors of guests that keep one of the host's busy: over the catalog a guest of two takes one, for a boot is one
/// thing after the other, and the harness and the device have their turns while the guest waits.
const GUEST_PROCESSORS: u64 = 2;

/// What may be in use at once, or is asked for: the host's processors, bytes of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    processors: u64,
    memory: u64,
}

impl Room {
    /// What this machine has: all processors, and most of the memory that is free now. With `jobs`, as many usual guests
    /// as that, whatever the processors.
    fn of_machine(jobs: Option<NonZero<usize>>) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let processors = match jobs {
            Some(jobs) => jobs.get() as u64 * busy(Scenario::USUAL.machine.processors),
            None => processors as u64,
        };
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { processors, memory: available(&meminfo).unwrap_or(0) / 100 * SHARE }
    }

    /// What a scenario takes.
    fn of(scenario: &Scenario, options: &RunOptions) -> Self {
        let size = |text: &str| parse_bytes(text).unwrap_or(0);
        let devices: u64 = scenario.devices.iter().map(|device| size(device.physical) + size(device.cache)).sum();
        let overrides = &options.overrides;
        Self {
            processors: busy(overrides.processors.unwrap_or(scenario.machine.processors)),
            memory: overrides.memory.unwrap_or(scenario.machine.memory_mib << 20) + devices + BESIDES,
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

/// The host's processors that a guest of so many keeps busy.
fn busy(guest_processors: u32) -> u64 {
    u64::from(guest_processors).div_ceil(GUEST_PROCESSORS)
}

/// Host memory that a usual scenario takes, and what is free, bytes.
pub fn usual_memory() -> (u64, u64) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (Room::of(&Scenario::USUAL, &RunOptions::default()).memory, available(&meminfo).unwrap_or(0))
}

/// `MemAvailable`, bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// In which order to begin them: one after the other as they come. Where several play at once, the one with the shortest
/// limit, so that there is soon something to see, and then the one that may take longest, so that it is not what everybody
/// waits for in the end.
fn in_order(scenarios: &[&'static Scenario], room: Room) -> Vec<&'static Scenario> {
    let mut order = scenarios.to_vec();
    if room.processors >= 2 * busy(Scenario::USUAL.machine.processors) {
        order.sort_by_key(|scenario| Reverse(scenario.limit));
        if let Some(shortest) = order.pop() {
            order.insert(0, shortest);
        }
    }
    order
}

/// Plays scenarios, as many at once as there is room for, and tells each outcome as it comes. Where a scenario asks for
/// more than the machine has it plays alone. None is begun after an interruption, or once the teller has had enough.
pub fn play_all(
    scenarios: &[&'static Scenario],
    provisioned: &Provisioned,
    options: &RunOptions,
    progress: &MultiProgress,
    mut ended: impl FnMut(&Outcome) -> ControlFlow<()>,
) -> Vec<Outcome> {
    let mut room = Room::of_machine(options.jobs);
    let mut waiting = in_order(scenarios, room);
    let mut outcomes = Vec::new();
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        let mut playing = 0;
        loop {
            let fits = |scenario: &&Scenario| playing == 0 || room.holds(Room::of(scenario, options));
            if !interrupted()
                && let Some(next) = waiting.iter().position(fits)
            {
                let scenario = waiting.remove(next);
                let taken = Room::of(scenario, options);
                room = room.minus(taken);
                playing += 1;
                let done = done.clone();
                scope.spawn(move || {
                    // The other end is dropped after all have ended.
                    let _ = done.send((runner::play(scenario, provisioned, options, progress), taken));
                });
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
        }
    });
    outcomes
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
    fn a_scenario_takes_guest_memory_media_and_cache() {
        let usual = Room::of(&Scenario::USUAL, &RunOptions::default());
        assert_eq!(usual, Room { processors: 1, memory: (1024 + 256 + 64 + 256) << 20 });
        let small = Room { processors: 1, memory: 1 << 30 };
        assert!(!small.holds(usual));
        assert!(small.plus(usual).minus(usual).plus(usual).holds(usual));
    }

    #[test]
    fn where_several_play_at_once_the_shortest_goes_first_and_then_the_longest() {
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
            in_order(&scenarios, Room { processors, memory: 0 })
                .iter()
                .map(|scenario| scenario.limit.as_secs())
                .collect()
        };
        assert_eq!(limits(1), [2, 1, 3, 4]);
        assert_eq!(limits(2), [1, 4, 3, 2]);
    }

    #[test]
    fn jobs_count_usual_guests() {
        assert_eq!(Room::of_machine(NonZero::new(3)).processors, 3);
    }
}
