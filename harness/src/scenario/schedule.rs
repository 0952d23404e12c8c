//! Several scenarios at once, within the machine's processors and memory.

use std::{fs, num::NonZero, sync::mpsc, thread};

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

/// What may be in use at once, or is asked for.
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
        let usual = Scenario::USUAL.machine.processors as usize;
        let processors = jobs.map_or(processors, |jobs| jobs.get() * usual);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { processors: processors as u64, memory: available(&meminfo).unwrap_or(0) / 100 * SHARE }
    }

    /// What a scenario takes.
    fn of(scenario: &Scenario, options: &RunOptions) -> Self {
        let size = |text: &str| parse_bytes(text).unwrap_or(0);
        let devices: u64 = scenario.devices.iter().map(|device| size(device.physical) + size(device.cache)).sum();
        let overrides = &options.overrides;
        Self {
            processors: u64::from(overrides.processors.unwrap_or(scenario.machine.processors)),
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

/// `MemAvailable`, bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// Plays scenarios, as many at once as there is room for, and tells each outcome as it comes. Where a scenario asks for
/// more than the machine has it plays alone. After an interruption none is begun.
pub fn play_all(
    scenarios: &[&'static Scenario],
    provisioned: &Provisioned,
    options: &RunOptions,
    progress: &MultiProgress,
    mut ended: impl FnMut(&Outcome),
) -> Vec<Outcome> {
    let mut room = Room::of_machine(options.jobs);
    let mut waiting: Vec<&'static Scenario> = scenarios.to_vec();
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
            ended(&outcome);
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
        assert_eq!(usual, Room { processors: 2, memory: (1024 + 256 + 64 + 256) << 20 });
        let small = Room { processors: 2, memory: 1 << 30 };
        assert!(!small.holds(usual));
        assert!(small.plus(usual).minus(usual).plus(usual).holds(usual));
    }

    #[test]
    fn jobs_count_usual_guests() {
        assert_eq!(Room::of_machine(NonZero::new(3)).processors, 6);
    }
}
