//! The sampler on a real control server and medium, in this process.

use std::{
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cxl_cram_device::{
    control::{DeviceCommands, Events, Server},
    cxl::{
        Injector,
        delay::{CommandDelay, DelayError},
        event_record::Record,
        events::Log,
        failure::{CommandFailure, FailureError},
        lost_interrupts::LoseError,
        ras::{Correctable, Header, Uncorrectable},
    },
    hdm::{
        Resident, Window,
        media::{Crossing, Media, MediaConfig, Threshold, Watermarks},
    },
    store::Codec,
    vfio_user::{Interrupts, Stop},
};

use super::*;

/// A window that tells of each reading, and counts its flushes.
struct Told {
    readings: Sender<()>,
    flushes: AtomicU32,
}

impl Window for Told {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read(&self, _dpa: u64, _data: &mut [u8]) {}

    fn write(&self, _dpa: u64, _data: &[u8]) {}

    fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
    }

    fn invalidate(&self, _dpa: Range<u64>) {}

    fn resident(&self) -> Resident {
        let _ = self.readings.send(());
        Resident { bytes: 8192, faults: 7, evicted: 5, written_back: 3, ..Resident::default() }
    }
}

struct Nobody;

impl Injector for Nobody {
    fn inject_crossing(&self, _crossing: Crossing) {}

    fn inject_event(&self, _log: Log, _record: Record) {}

    fn inject_uncorrectable(&self, _error: Uncorrectable, _header: &Header) {}

    fn inject_correctable(&self, _error: Correctable) {}

    fn fail_command(&self, _failure: CommandFailure) -> Result<u64, FailureError> {
        Ok(0)
    }

    fn delay_command(&self, _delay: CommandDelay) -> Result<u64, DelayError> {
        Ok(0)
    }

    fn lose_interrupt(&self, _vector: u16, _count: u64) -> Result<u64, LoseError> {
        Ok(0)
    }
}

/// A medium of 1 MiB, and its readings.
struct Rig {
    media: Arc<Media>,
    window: Arc<Told>,
    readings: Receiver<()>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let watermarks = Watermarks { low: Threshold::Percent(20.0), high: Threshold::Percent(50.0) };
        let config = MediaConfig { capacity: 16 << 20, physical: 1 << 20, codec: Codec::Lz4, watermarks };
        let media = Media::new(&config).unwrap();
        let (told, readings) = mpsc::channel();
        let window = Arc::new(Told { readings: told, flushes: AtomicU32::new(0) });
        media.set_window(&window);
        Self { media, window, readings, folder: tempfile::tempdir().unwrap() }
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Serves while `during` lasts.
    fn serving(&self, during: impl FnOnce()) {
        let server = Server::bind(self.control()).unwrap();
        let stop = Stop::new().unwrap();
        let commands = DeviceCommands {
            media: self.media.clone(),
            injector: Arc::new(Nobody),
            interrupts: Arc::new(Interrupts::new()),
            stop: stop.clone(),
            codec: Codec::Lz4,
            window: "trap",
        };
        thread::scope(|scope| {
            scope.spawn(|| server.run(&commands, &Events::new().unwrap(), &stop).unwrap());
            // Also when `during` panics: the scope waits for the server.
            let _stop = stop.on_drop();
            during();
        });
    }

    /// Waits until the sampler has a sample of what is stored now. It asks for one at a time, so it has the answer to the first question when it asks the second.
    fn sampled(&self) {
        while self.readings.try_recv().is_ok() {}
        for _ in 0..3 {
            self.readings.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    /// Stores blocks that do not compress.
    fn fill(&self, blocks: Range<u64>) {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for block in blocks {
            let mut data = [0; 4096];
            for byte in &mut data {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            self.media.store(block, &data);
        }
    }
}

#[test]
fn samples_tell_the_course_of_the_medium_and_flush_nothing() {
    let rig = Rig::new();
    rig.serving(|| {
        let sampler = Sampler::start(&rig.control(), Instant::now());
        rig.sampled();
        rig.fill(0..230);
        rig.sampled();
        let samples = sampler.finish();
        let (first, last) = (&samples[0], samples.last().unwrap());
        assert_eq!((first.used, first.blocked, first.low_crossings), (0, false, 0));
        assert_eq!((last.used, last.blocked, last.low_crossings), (230 * 4096, true, 1));
        assert_eq!((last.physical, last.low_watermark, last.high_watermark), (1 << 20, (1 << 20) / 5, 1 << 19));
        assert_eq!((last.resident, last.faults, last.evicted, last.written_back), (8192, 7, 5, 3));
        assert!(samples.is_sorted_by_key(|sample| sample.at_ms));
    });
    assert_eq!(rig.window.flushes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_device_that_dies_and_comes_back_is_sampled_again() {
    let rig = Rig::new();
    let mut sampler = None;
    rig.serving(|| {
        sampler = Some(Sampler::start(&rig.control(), Instant::now()));
        rig.sampled();
    });
    rig.fill(0..10);
    rig.serving(|| {
        rig.sampled();
        let samples = sampler.take().unwrap().finish();
        assert_eq!((samples[0].used, samples.last().unwrap().used), (0, 10 * 4096));
    });
}

#[test]
fn a_device_that_never_answers_gives_no_samples_and_no_delay() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control.sock");
    assert!(Sampler::start(&control, Instant::now()).finish().is_empty());
    // It accepts and is silent: the kernel's backlog answers for it.
    let _silent = std::os::unix::net::UnixListener::bind(&control).unwrap();
    assert!(Sampler::start(&control, Instant::now()).finish().is_empty());
}
