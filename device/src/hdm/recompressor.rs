//! The thread that makes room: when media is short, it recompresses cold blocks inside a bound on its CPU time.
//!
//! Short means that free media is not above the high watermark. Then the thread makes one pass over the store after the
//! other, in small steps with rests between, until media is no longer short. High crossings that follow are sent from
//! this thread. It sleeps without a timer while there is room.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustix::time::{ClockId, clock_gettime};

use super::media::Media;

/// Blocks compressed in a step: between two looks at the clock.
const TRIES: usize = 8;

/// How recompression goes about it.
#[derive(Clone, Debug)]
pub struct RecompressorConfig {
    /// CPU time of the thread in per cent of one core; 0 counts as 1, more than 100 as 100.
    pub cpu_percent: u8,
    /// The least time from the start of one pass to that of the next. A block is cold when it was not written for a
    /// pass, so this is also the least age of a cold block.
    pub pass_interval: Duration,
}

impl Default for RecompressorConfig {
    /// A quarter of a core; a pass a second, which is longer than a page the guest writes stays in the window.
    fn default() -> Self {
        Self { cpu_percent: 25, pass_interval: Duration::from_secs(1) }
    }
}

/// The running thread; dropping this stops it and waits for it.
#[derive(Debug)]
pub struct Recompressor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Recompressor {
    /// Starts recompressing a medium, one whose codec is adaptive; at once if its media is short.
    pub fn start(media: &Arc<Media>, config: &RecompressorConfig) -> io::Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let worker = Worker { media: Arc::clone(media), config: config.clone(), stopped };
        let thread = thread::Builder::new().name("recompress".into()).spawn(move || {
            // The only end there is.
            let Err(Stopped) = worker.run();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Recompressor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that recompresses has panicked");
        }
    }
}

/// The [`Recompressor`] is going.
struct Stopped;

struct Worker {
    media: Arc<Media>,
    config: RecompressorConfig,
    /// Nothing is ever sent; it disconnects.
    stopped: Receiver<()>,
}

impl Worker {
    fn run(&self) -> Result<Infallible, Stopped> {
        let mut pacer = Pacer::new(self.config.cpu_percent);
        let start = Instant::now();
        loop {
            while self.media.is_short() {
                let began = Instant::now();
                self.pass(&mut pacer, start)?;
                self.rest(self.config.pass_interval.saturating_sub(began.elapsed()))?;
            }
            crossbeam_channel::select! {
                recv(self.media.short()) -> _ => {}
                recv(self.stopped) -> _ => return Err(Stopped),
            }
        }
    }

    /// One pass, or as much of it as it takes.
    fn pass(&self, pacer: &mut Pacer, start: Instant) -> Result<(), Stopped> {
        let mut from = Some(0);
        while let Some(at) = from
            && self.media.is_short()
        {
            from = self.media.recompress(at, TRIES).next;
            self.rest(pacer.rest(thread_cpu_time(), start.elapsed()))?;
        }
        Ok(())
    }

    fn rest(&self, time: Duration) -> Result<(), Stopped> {
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Keeps CPU time below a share of wall time: as arithmetic on two clocks, which it does not read itself.
#[derive(Debug)]
struct Pacer {
    percent: u32,
    /// CPU time accounted for.
    cpu: Duration,
    /// The wall time at which that much was allowed.
    due: Duration,
}

impl Pacer {
    fn new(percent: u8) -> Self {
        Self { percent: percent.clamp(1, 100).into(), cpu: Duration::ZERO, due: Duration::ZERO }
    }

    /// How long to rest now. Idle time is not saved up: after any rest, work begins at nothing.
    fn rest(&mut self, cpu: Duration, wall: Duration) -> Duration {
        let worked = cpu.saturating_sub(self.cpu);
        let began = self.due.max(wall.saturating_sub(worked));
        self.cpu = cpu;
        self.due = began.saturating_add(worked.saturating_mul(100) / self.percent);
        self.due.saturating_sub(wall)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_quarter_of_a_core_rests_three_times_as_long_as_it_works() {
        let mut pacer = Pacer::new(25);
        assert_eq!(pacer.rest(MS, MS), 3 * MS);
        assert_eq!(pacer.rest(2 * MS, 5 * MS), 3 * MS);
    }

    #[test]
    fn a_whole_core_never_rests_and_no_share_is_one_per_cent() {
        assert_eq!(Pacer::new(100).rest(MS, MS), Duration::ZERO);
        assert_eq!(Pacer::new(255).rest(MS, MS), Duration::ZERO);
        assert_eq!(Pacer::new(0).rest(MS, MS), 99 * MS);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut pacer = Pacer::new(25);
        assert_eq!(pacer.rest(MS, 1001 * MS), 3 * MS);
    }

    proptest! {
        /// Whatever the steps take, how late the thread wakes and how long others have the core.
        #[test]
        fn from_any_step_to_any_later_one_cpu_time_stays_below_its_share(
            percent in 1..=100_u8,
            steps in prop::collection::vec((0..5_000_u64, 0..2_000_u64, 0..2_000_u64), 1..50),
        ) {
            let mut pacer = Pacer::new(percent);
            let (mut cpu, mut wall) = (Duration::ZERO, Duration::ZERO);
            // The clocks before each step, and after its rest.
            let mut marks = Vec::new();
            for (work, preempted, late) in steps {
                let before = (cpu, wall);
                cpu += Duration::from_micros(work);
                wall += Duration::from_micros(work + preempted);
                wall += pacer.rest(cpu, wall);
                marks.push((before, (cpu, wall)));
                wall += Duration::from_micros(late);
            }
            for (first, (begun, _)) in marks.iter().enumerate() {
                for (_, ended) in &marks[first..] {
                    let (cpu, wall) = (ended.0 - begun.0, ended.1 - begun.1);
                    let allowed = wall * u32::from(percent) / 100;
                    prop_assert!(cpu <= allowed + Duration::from_nanos(50), "{cpu:?} in {wall:?}");
                }
            }
        }
    }
}
