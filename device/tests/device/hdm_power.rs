//! The power cycle: over for the medium at once, whatever is stored; the window's copies are waited for by those they concern.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{ops::Range, os::fd::BorrowedFd, sync::Arc, thread, time::Duration};

use cxl_cram_device::{
    cxl::{Type3, Type3Config},
    hdm::{Resident, Window},
    serve::{Board, MsixWire},
    vfio_user::{Backend, Interrupts},
};
use parking_lot::{Condvar, Mutex};

use super::hdm_media::{MIB, PAGE, load, medium, noise};

/// A window that is about to drop its copies, until it may.
#[derive(Default)]
struct Slow {
    may: Mutex<bool>,
    allowed: Condvar,
    log: Mutex<Vec<&'static str>>,
}

impl Slow {
    fn allow(&self) {
        *self.may.lock() = true;
        self.allowed.notify_all();
    }
}

impl Window for Slow {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn read(&self, _dpa: u64, _data: &mut [u8]) {
        self.log.lock().push("read");
    }
    fn write(&self, _dpa: u64, _data: &[u8]) {}
    fn flush(&self) {}
    fn invalidate(&self, _dpa: Range<u64>) {
        let mut may = self.may.lock();
        while !*may {
            self.allowed.wait(&mut may);
        }
        self.log.lock().push("dropped");
    }
    fn resident(&self) -> Resident {
        Resident::default()
    }
}

/// Does it on a thread of its own and fails if it does not come back.
fn in_time(what: impl FnOnce() + Send + 'static) {
    let (done, waits) = std::sync::mpsc::channel();
    thread::spawn(move || {
        what();
        done.send(()).unwrap();
    });
    waits.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_power_cycle_is_over_for_the_medium_before_the_window_has_dropped_its_copies() {
    let media = medium(MIB);
    for block in 0..300 {
        media.store(block, &noise(block));
    }
    let window = Arc::new(Slow::default());
    media.set_window(&window);
    in_time({
        let media = Arc::clone(&media);
        move || media.power_cycle()
    });
    let occupancy = media.occupancy_now();
    assert_eq!((occupancy.usage.used, occupancy.poisoned, occupancy.overflows, occupancy.blocked), (0, 0, 0, false));
    assert_eq!(load(&media, 5), [0; 4096]);
    media.store(5, &noise(5));
    assert_eq!(load(&media, 5), [0; 4096], "what the window writes back is of the time before");

    window.allow();
    media.wait_until_clear();
    media.store(5, &noise(5));
    assert_eq!(load(&media, 5), noise(5));
    assert_eq!(media.occupancy_now().usage, media.occupancy().usage);
}

#[test]
fn commands_and_accesses_of_the_next_client_wait_until_the_window_has_dropped_its_copies() {
    let media = medium(MIB);
    let window = Arc::new(Slow::default());
    media.set_window(&window);
    let interrupts = Arc::new(Interrupts::new());
    let function = Type3::new(&Type3Config::default(), Arc::clone(&media), Arc::new(MsixWire::new(&interrupts)));
    let board = Board::new(function, Arc::clone(&media), Arc::clone(&window) as _);
    in_time({
        let board = Arc::clone(&board);
        move || board.client_connected()
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            media.zero(0..PAGE).unwrap();
            window.log.lock().push("zeroed");
        });
        scope.spawn(|| {
            assert!(board.mmap_fd(2).is_none());
            window.log.lock().push("mapped");
        });
        scope.spawn(|| board.read(2, 0, &mut [0; 8]).unwrap());
        // Long enough for those that would not wait.
        thread::sleep(Duration::from_millis(100));
        window.allow();
    });
    let log = window.log.lock();
    assert_eq!((log.len(), log[0]), (5, "dropped"), "{log:?}: the power cycle's, then what waited for it");
}

#[test]
fn the_physical_size_and_the_watermarks_outlive_a_power_cycle() {
    let media = medium(64 * PAGE);
    media.set_physical(32 * PAGE).unwrap();
    media.power_cycle();
    media.wait_until_clear();
    assert_eq!(media.occupancy().usage.physical, 32 * PAGE);
    let low = 32 * PAGE / 10;
    assert_eq!(media.occupancy().low_watermark / PAGE, low / PAGE);
}
