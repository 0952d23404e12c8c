//! The medium through its public face: overflow, poison, watermarks, and write-backs that come at the wrong moment.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    ops::Range,
    os::fd::BorrowedFd,
    sync::{Arc, Weak},
    thread,
};

use cxl_cram_device::{
    hdm::{
        Resident, Window,
        media::{
            Crossing, LINE_SIZE, Media, MediaConfig, MediaError, MediaEvent, POISON_PATTERN, PoisonRecord,
            PoisonSource, Threshold, Watermarks,
        },
        trap::TrapWindow,
    },
    store::{Block, Codec},
};
use parking_lot::Mutex;
use proptest::prelude::*;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

fn percent(low: f64, high: f64) -> Watermarks {
    Watermarks { low: Threshold::Percent(low), high: Threshold::Percent(high) }
}

pub(crate) fn medium(physical: u64) -> Arc<Media> {
    let watermarks = percent(10.0, 20.0);
    Media::new(&MediaConfig { capacity: CAPACITY, physical, codec: Codec::Lz4, watermarks }).unwrap()
}

/// A block that does not compress.
pub(crate) fn noise(seed: u64) -> Block {
    let mut block = [0; 4096];
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for bytes in block.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.copy_from_slice(&x.to_le_bytes());
    }
    block
}

pub(crate) fn load(media: &Media, block: u64) -> Block {
    let mut out = [0; 4096];
    media.load(block, &mut out);
    out
}

fn pattern() -> Block {
    let mut block = [0; 4096];
    block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&POISON_PATTERN.to_le_bytes()));
    block
}

fn listen(media: &Media) -> Arc<Mutex<Vec<MediaEvent>>> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    media.add_listener(move |event| heard.lock().push(event));
    events
}

/// A window with one dirty page, which it writes back when it has to drop it: the worst moment for a command.
struct Stale {
    media: Weak<Media>,
    dirty: Mutex<Option<(u64, Block)>>,
    later: Mutex<Vec<Range<u64>>>,
}

impl Stale {
    fn new(media: &Arc<Media>, block: u64, data: Block) -> Arc<Self> {
        let dirty = Mutex::new(Some((block, data)));
        let window = Arc::new(Self { media: Arc::downgrade(media), dirty, later: Mutex::default() });
        media.set_window(&window);
        window
    }
}

impl Window for Stale {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn read(&self, _dpa: u64, _data: &mut [u8]) {}
    fn write(&self, _dpa: u64, _data: &[u8]) {}
    fn flush(&self) {
        if let Some((block, data)) = self.dirty.lock().take() {
            self.media.upgrade().unwrap().store(block, &data);
        }
    }
    fn invalidate(&self, _dpa: Range<u64>) {
        // A handler is another thread.
        thread::scope(|scope| scope.spawn(|| self.flush()).join()).unwrap();
    }
    fn invalidate_later(&self, dpa: Range<u64>) {
        self.later.lock().push(dpa);
    }
    fn resident(&self) -> Resident {
        Resident::default()
    }
}

#[test]
fn a_block_that_does_not_fit_is_poisoned_and_listed_and_all_others_are_untouched() {
    let media = medium(MIB);
    let events = listen(&media);
    let window = Stale::new(&media, 0, noise(0));
    for block in 0..300 {
        media.store(block, &noise(block));
    }
    let lost: Vec<u64> = (0..300).filter(|&block| load(&media, block) != noise(block)).collect();
    assert!(!lost.is_empty());
    for &block in &lost {
        assert_eq!(load(&media, block), pattern());
        let record = PoisonRecord { dpa: block * PAGE, length: PAGE, source: PoisonSource::Internal };
        assert_eq!(media.poison_list(block * PAGE..(block + 1) * PAGE), [record]);
        assert!(events.lock().contains(&MediaEvent::Overflow { dpa: block * PAGE }));
    }
    let told: Vec<u64> = window.later.lock().iter().map(|dpa| dpa.start / PAGE).collect();
    assert_eq!(told, lost, "the window is asked to drop what is lost");
    let occupancy = media.occupancy_now();
    assert_eq!(occupancy.overflows, lost.len() as u64);
    assert_eq!(occupancy.poisoned, lost.len() as u64 * PAGE);
    assert!(occupancy.usage.used <= MIB);
}

#[test]
fn a_block_that_overflowed_loses_its_earlier_contents_too() {
    let media = medium(MIB);
    media.store(0, &[5; 4096]);
    for block in 1..300 {
        media.store(block, &noise(block));
    }
    media.store(0, &noise(0));
    assert_eq!(load(&media, 0), pattern());
}

#[test]
fn a_block_that_fits_again_loses_its_poison_and_the_overflow_count_stays() {
    let media = medium(MIB);
    for block in 0..300 {
        media.store(block, &noise(block));
    }
    let overflows = media.occupancy_now().overflows;
    media.zero(0..128 * PAGE).unwrap();
    media.store(299, &noise(299));
    assert_eq!(load(&media, 299), noise(299));
    assert_eq!(media.poison_list(299 * PAGE..300 * PAGE), []);
    assert_eq!(media.occupancy_now().overflows, overflows);
}

#[test]
fn a_write_back_heals_only_lines_without_any_of_the_pattern() {
    let media = medium(MIB);
    media.store(3, &[9; 4096]);
    for line in [1, 2, 40] {
        media.inject_poison(3 * PAGE + line * LINE_SIZE).unwrap();
    }
    let mut page = load(&media, 3);
    assert_eq!(page[64..192], pattern()[64..192]);
    page[2 * 64..3 * 64].fill(0);
    media.store(3, &page);
    let injected = |dpa| PoisonRecord { dpa, length: LINE_SIZE, source: PoisonSource::Injected };
    assert_eq!(media.poison_list(0..CAPACITY), [injected(3 * PAGE + 64), injected(3 * PAGE + 40 * 64)]);
    assert_eq!(load(&media, 3), page);
}

#[test]
fn a_line_written_in_parts_stays_poisoned_until_all_of_it_is_written() {
    let media = medium(MIB);
    media.store(3, &[9; 4096]);
    media.inject_poison(3 * PAGE + 64).unwrap();
    let record = PoisonRecord { dpa: 3 * PAGE + 64, length: LINE_SIZE, source: PoisonSource::Injected };
    for at in (64..128).step_by(16) {
        assert_eq!(media.poison_list(0..CAPACITY), [record]);
        let mut page = load(&media, 3);
        page[at..at + 16].fill(at as u8);
        media.store(3, &page);
        assert_eq!(load(&media, 3), page);
    }
    assert_eq!(media.poison_list(0..CAPACITY), []);

    media.inject_poison(3 * PAGE + 64).unwrap();
    let mut page = load(&media, 3);
    page[64] = 1;
    media.store(3, &page);
    media.inject_poison(3 * PAGE + 64).unwrap();
    assert_eq!(load(&media, 3)[64..128], pattern()[64..128], "poisoned again, it is lost again");
}

#[test]
fn a_line_whose_first_half_was_lost_between_the_halves_stays_poisoned() {
    let media = medium(MIB);
    let mut block = 100;
    while media.occupancy_now().overflows == 0 {
        media.store(block, &noise(block));
        block += 1;
    }
    // The guest is in the middle of line 32 when the page is written back, does not fit, and is dropped.
    let mut page = noise(7);
    page[32 * 64 + 32..].copy_from_slice(&pattern()[32 * 64 + 32..]);
    media.store(7, &page);
    assert_eq!(media.occupancy_now().overflows, 2);
    // It goes on with what it loads then.
    let mut page = load(&media, 7);
    page[32 * 64 + 32..].copy_from_slice(&noise(7)[32 * 64 + 32..]);
    media.zero(100 * PAGE..110 * PAGE).unwrap();
    media.store(7, &page);
    let record = PoisonRecord { dpa: 7 * PAGE, length: 33 * LINE_SIZE, source: PoisonSource::Internal };
    assert_eq!(media.poison_list(7 * PAGE..8 * PAGE), [record]);
    assert_eq!(load(&media, 7), page);
}

#[test]
fn a_load_of_poison_is_reported_with_its_poisoned_lines_and_no_other_load_is() {
    let media = medium(MIB);
    for line in [2, 5] {
        media.inject_poison(PAGE + line * LINE_SIZE).unwrap();
    }
    let events = listen(&media);
    load(&media, 0);
    load(&media, 2);
    media.occupancy();
    assert_eq!(*events.lock(), []);
    load(&media, 1);
    let told = MediaEvent::PoisonRead { dpa: PAGE + 2 * LINE_SIZE, length: 4 * LINE_SIZE };
    assert_eq!(*events.lock(), [told]);
    media.store(1, &noise(1));
    load(&media, 1);
    assert_eq!(*events.lock(), [told], "what was stored anew is no poison");
}

#[test]
fn a_trapped_load_of_poison_is_reported_only_when_it_touches_the_line() {
    let media = medium(MIB);
    let window = TrapWindow::new(Arc::clone(&media));
    media.inject_poison(PAGE + 64).unwrap();
    let events = listen(&media);
    window.read(PAGE + 56, &mut [0; 8]);
    window.read(PAGE + 128, &mut [0; 8]);
    // A store reads the block to change a part of it: that is not the guest's load.
    window.write(PAGE + 200, &[1; 8]);
    assert_eq!(*events.lock(), []);
    window.read(PAGE + 60, &mut [0; 8]);
    assert_eq!(*events.lock(), [MediaEvent::PoisonRead { dpa: PAGE + 64, length: 64 }]);
}

#[test]
fn neighbours_of_one_source_are_one_record_and_a_query_cuts_it() {
    let media = medium(MIB);
    for dpa in [PAGE - 64, PAGE, PAGE + 64] {
        media.inject_poison(dpa).unwrap();
        media.inject_poison(dpa).unwrap();
    }
    let source = PoisonSource::Injected;
    assert_eq!(media.poison_list(0..CAPACITY), [PoisonRecord { dpa: PAGE - 64, length: 192, source }]);
    assert_eq!(media.poison_list(PAGE..PAGE + 1), [PoisonRecord { dpa: PAGE, length: 64, source }]);
    assert_eq!(media.poison_list(PAGE..PAGE), []);
    assert_eq!(media.occupancy_now().poisoned, 192);
}

#[test]
fn the_list_takes_so_many_injected_lines_and_any_number_of_lost_blocks() {
    let media = medium(MIB);
    for line in 0..Media::MAX_INJECTED as u64 {
        media.inject_poison(line * 2 * LINE_SIZE).unwrap();
    }
    assert!(matches!(media.inject_poison(CAPACITY - 64), Err(MediaError::PoisonListFull)));
    media.inject_poison(0).unwrap();
    for block in 1000..1300 {
        media.store(block, &noise(block));
    }
    assert!(media.occupancy_now().overflows > 0);
    media.clear_poison(0, &[0; 64]).unwrap();
    media.inject_poison(CAPACITY - 64).unwrap();
}

#[test]
fn a_stale_write_back_does_not_bring_zeroed_data_back() {
    let media = medium(MIB);
    media.store(7, &noise(1));
    let _window = Stale::new(&media, 7, noise(2));
    media.zero(7 * PAGE..8 * PAGE).unwrap();
    assert_eq!(load(&media, 7), [0; 4096]);
    assert_eq!(media.occupancy_now().usage.used, 0);
    media.store(7, &noise(3));
    assert_eq!(load(&media, 7), noise(3), "held only while the command runs");
}

#[test]
fn a_stale_write_back_does_not_heal_what_is_being_injected() {
    let media = medium(MIB);
    let _window = Stale::new(&media, 7, noise(2));
    media.inject_poison(7 * PAGE + 128).unwrap();
    let mut expected = noise(2);
    expected[128..192].copy_from_slice(&pattern()[..64]);
    assert_eq!(load(&media, 7), expected, "the rest of the page is stored");
}

#[test]
fn a_stale_write_back_does_not_undo_a_cleared_line() {
    let media = medium(MIB);
    media.inject_poison(7 * PAGE).unwrap();
    let mut seen_by_guest = noise(2);
    seen_by_guest[..64].copy_from_slice(&pattern()[..64]);
    let _window = Stale::new(&media, 7, seen_by_guest);
    media.clear_poison(7 * PAGE, &[1; 64]).unwrap();
    let mut expected = noise(2);
    expected[..64].fill(1);
    assert_eq!(load(&media, 7), expected);
    assert_eq!(media.poison_list(0..CAPACITY), []);
}

#[test]
fn occupancy_asks_the_window_first() {
    let media = medium(MIB);
    let _window = Stale::new(&media, 0, noise(1));
    assert_eq!(media.occupancy_now().usage.used, 0);
    assert!(media.occupancy().usage.used >= PAGE);
}

#[test]
fn ranges_outside_the_capacity_or_askew_are_refused() {
    let media = medium(MIB);
    for dpa in [0..PAGE + 1, 1..PAGE, CAPACITY..CAPACITY + PAGE, u64::MAX - 4095..u64::MAX] {
        assert!(matches!(media.zero(dpa), Err(MediaError::BadRange { .. })));
    }
    #[expect(clippy::reversed_empty_ranges, reason = "what a hostile caller passes")]
    let reversed = PAGE..0;
    assert!(media.zero(reversed).is_err());
    for dpa in [1, CAPACITY, u64::MAX, u64::MAX - 63] {
        assert!(media.inject_poison(dpa).is_err());
        assert!(media.clear_poison(dpa, &[0; 64]).is_err());
    }
    media.store(u64::MAX, &noise(0));
    assert_eq!(load(&media, u64::MAX), [0; 4096]);
}

#[test]
fn each_crossing_is_reported_once_and_nothing_between_the_watermarks() {
    let media = medium(MIB);
    let events = listen(&media);
    let fill = |blocks: Range<u64>| blocks.for_each(|block| media.store(block, &noise(block)));
    fill(0..230);
    assert_eq!(*events.lock(), []);
    fill(230..240);
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low)]);
    assert!(media.occupancy_now().blocked);
    media.zero(0..30 * PAGE).unwrap();
    fill(0..28);
    assert_eq!(events.lock().len(), 1, "free media was between the watermarks");
    media.zero(0..60 * PAGE).unwrap();
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low), MediaEvent::Crossed(Crossing::High)]);
    assert!(!media.occupancy_now().blocked);
}

#[test]
fn watermarks_in_per_cent_follow_the_physical_size_and_a_resize_may_cross() {
    let media = medium(4 * MIB);
    let events = listen(&media);
    (0..240).for_each(|block| media.store(block, &noise(block)));
    media.set_physical(MIB).unwrap();
    let occupancy = media.occupancy_now();
    assert_eq!((occupancy.low_watermark, occupancy.high_watermark), (MIB / 10, MIB / 5));
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low)]);
    media.set_watermarks(percent(1.0, 2.0)).unwrap();
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low), MediaEvent::Crossed(Crossing::High)]);
}

#[test]
fn watermarks_that_make_no_sense_are_refused_and_change_nothing() {
    let media = medium(MIB);
    let bytes = |low, high| Watermarks { low: Threshold::Bytes(low), high: Threshold::Bytes(high) };
    let bad = [
        percent(20.0, 20.0),
        percent(30.0, 20.0),
        percent(f64::NAN, 20.0),
        percent(-1.0, 20.0),
        percent(10.0, 101.0),
        percent(10.0, 100.0),
        bytes(0, MIB),
        bytes(u64::MAX, 1),
    ];
    for watermarks in bad {
        assert!(matches!(media.set_watermarks(watermarks), Err(MediaError::BadWatermarks { .. })), "{watermarks:?}");
    }
    media.set_watermarks(bytes(PAGE, MIB / 2)).unwrap();
    assert!(matches!(media.set_physical(MIB / 2), Err(MediaError::BadWatermarks { .. })));
    let occupancy = media.occupancy_now();
    assert_eq!((occupancy.low_watermark, occupancy.high_watermark), (PAGE, MIB / 2));
    assert_eq!(occupancy.usage.physical, MIB);
}

#[test]
fn crossings_alternate_however_many_threads_store_and_zero() {
    let media = medium(MIB);
    let events = listen(&media);
    thread::scope(|scope| {
        for thread in 0..4 {
            let media = &media;
            scope.spawn(move || {
                let blocks = thread * 64..(thread + 1) * 64;
                for round in 0..8 {
                    blocks.clone().for_each(|block| media.store(block, &noise(block + round)));
                    media.zero(blocks.start * PAGE..blocks.end * PAGE).unwrap();
                }
            });
        }
    });
    media.zero(0..CAPACITY).unwrap();
    let crossings: Vec<_> =
        events.lock().iter().filter(|event| !matches!(event, MediaEvent::Overflow { .. })).copied().collect();
    for (n, crossing) in crossings.iter().enumerate() {
        let expected =
            if n % 2 == 0 { MediaEvent::Crossed(Crossing::Low) } else { MediaEvent::Crossed(Crossing::High) };
        assert_eq!(*crossing, expected, "{n}");
    }
    assert!(!media.occupancy_now().blocked);
}

#[test]
fn a_listener_may_look_at_the_medium_and_change_its_watermarks() {
    let media = medium(MIB);
    let (weak, heard) = (Arc::downgrade(&media), Arc::new(Mutex::new(Vec::new())));
    let told = Arc::clone(&heard);
    media.add_listener(move |event| {
        let media: Arc<Media> = weak.upgrade().unwrap();
        told.lock().push((event, media.occupancy_now().blocked, media.poison_list(0..CAPACITY).len()));
        if event == MediaEvent::Crossed(Crossing::Low) {
            media.set_watermarks(percent(1.0, 2.0)).unwrap();
        }
    });
    (0..240).for_each(|block| media.store(block, &noise(block)));
    assert_eq!(
        *heard.lock(),
        [(MediaEvent::Crossed(Crossing::Low), true, 0), (MediaEvent::Crossed(Crossing::High), false, 0)]
    );
}

#[test]
fn after_a_power_cycle_nothing_is_left_and_no_event_is_sent() {
    let media = medium(MIB);
    for block in 0..300 {
        media.store(block, &noise(block));
    }
    media.inject_poison(CAPACITY - 64).unwrap();
    let _window = Stale::new(&media, 5, noise(5));
    let events = listen(&media);
    media.power_cycle();
    media.wait_until_clear();
    assert_eq!(*events.lock(), []);
    let occupancy = media.occupancy_now();
    assert_eq!((occupancy.usage.used, occupancy.poisoned, occupancy.overflows, occupancy.blocked), (0, 0, 0, false));
    assert_eq!(load(&media, 5), [0; 4096]);
    (0..240).for_each(|block| media.store(block, &noise(block)));
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model of lines: `None` is poisoned.
    #[test]
    fn loads_agree_with_a_model_of_lines(steps in prop::collection::vec((0..4_u64, 0..3_u64, 0..64_u64, any::<u8>()), 1..60)) {
        let media = medium(MIB);
        let mut model = vec![[Some(0_u8); 64]; 3];
        for (step, block, line, byte) in steps {
            let lines = &mut model[block as usize];
            let dpa = block * PAGE + line * LINE_SIZE;
            match step {
                0 => {
                    // The guest stores to one line of a page it has loaded.
                    let mut page = load(&media, block);
                    page[line as usize * 64..][..64].fill(byte);
                    media.store(block, &page);
                    lines[line as usize] = Some(byte);
                }
                1 => {
                    media.inject_poison(dpa).unwrap();
                    lines[line as usize] = None;
                }
                2 => {
                    media.clear_poison(dpa, &[byte; 64]).unwrap();
                    lines[line as usize] = Some(byte);
                }
                _ => {
                    media.zero(block * PAGE..(block + 1) * PAGE).unwrap();
                    *lines = [Some(0); 64];
                }
            }
            for (block, lines) in (0..).zip(&model) {
                let page = load(&media, block);
                for (line, expected) in lines.iter().enumerate() {
                    let bytes = &page[line * 64..][..64];
                    match expected {
                        Some(byte) => prop_assert!(bytes.iter().all(|b| b == byte)),
                        None => prop_assert_eq!(bytes, &pattern()[..64]),
                    }
                }
            }
            let poisoned = model.iter().flatten().filter(|line| line.is_none()).count() as u64;
            prop_assert_eq!(media.occupancy_now().poisoned, poisoned * LINE_SIZE);
            prop_assert_eq!(media.poison_list(0..CAPACITY).iter().map(|r| r.length).sum::<u64>(), poisoned * LINE_SIZE);
        }
    }
}
