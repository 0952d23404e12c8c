//! The FUSE window as a client in another process sees it.

use std::{
    fs::{self, File},
    sync::Arc,
    thread,
};

use crate::support::{self, MIB, PAGE, Setup, config, media, mounts_below, named, noise_word, window_file};
use cxl_cram_device::{
    hdm::{
        Window,
        fuse::{FuseWindow, WindowError},
        media::{Crossing, MediaEvent, POISON_PATTERN, PoisonRecord, PoisonSource},
    },
    vfio_user::Stop,
};
use parking_lot::{Condvar, Mutex};

/// The tests of this file that need `/dev/fuse`.
pub(crate) const TESTS: &[(&str, fn())] = named![
    no_store_is_lost_while_pages_come_and_go,
    residency_never_exceeds_the_bound_by_more_than_the_reads_under_way,
    after_a_flush_occupancy_counts_every_store,
    without_a_flush_stores_are_counted_soon,
    a_flush_that_takes_too_long_is_not_waited_for_and_goes_on,
    filling_through_the_window_crosses_low_and_zeroing_crosses_high,
    a_page_the_medium_lost_shows_the_pattern_to_the_client_that_stored_it,
    a_zeroed_page_stays_zero_although_it_was_resident_and_dirty,
    poison_injected_into_a_dirty_resident_page_is_seen_and_only_its_line_is_lost,
    a_load_of_a_poisoned_page_is_reported_when_it_faults_and_not_while_resident,
    accesses_by_message_and_by_mapping_agree,
    the_file_cannot_be_cut_removed_or_joined_by_another,
    nothing_is_left_behind_even_when_a_client_still_maps_it,
];

/// Those that do not.
pub(crate) const TESTS_WITHOUT_FUSE: &[(&str, fn())] = named![a_cache_too_small_to_evict_from_is_refused];

fn no_store_is_lost_while_pages_come_and_go() {
    let setup = Setup::new(64 * MIB, 64 * MIB);
    let mut client = setup.client();
    let done = Stop::new().unwrap();
    let added = thread::scope(|scope| {
        // Eviction takes pages already; take them all at once besides.
        scope.spawn(|| {
            while !done.is_triggered() {
                setup.window.invalidate(0..64 * MIB);
                setup.window.flush();
            }
        });
        let _done = done.on_drop();
        client.ask("race 4 10000")
    });
    assert!(setup.window.resident().evicted + setup.window.resident().written_back > 0);
    assert_eq!(setup.sum_of_counters(64 * MIB), added);
}

fn residency_never_exceeds_the_bound_by_more_than_the_reads_under_way() {
    let setup = Setup::new(64 * MIB, 64 * MIB);
    let mut client = setup.client();
    let most = client.ask("sweep 3 0");
    let resident = setup.window.resident();
    assert!(resident.evicted > 0);
    assert!(resident.bytes <= resident.bound, "{resident:?}");
    assert_eq!(setup.window.overruns(), 0);
    assert!(most > resident.bound / PAGE / 2, "only {most} pages were ever seen: the sampler saw nothing");
    // Four sweepers, each with one read and one read-ahead of 32 pages under way.
    assert!(most <= resident.bound / PAGE + 4 * 2 * 32, "{most} pages of {resident:?}");
}

fn after_a_flush_occupancy_counts_every_store() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    client.noise(0, 100);
    assert_eq!(setup.media.occupancy_now().usage.used, 0);
    assert!(setup.media.occupancy().usage.used >= 100 * PAGE);
    let mut block = [0; 4096];
    for page in 0..100 {
        setup.media.load(page, &mut block);
        for (word, bytes) in block.chunks_exact(8).enumerate() {
            assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), noise_word(page * PAGE + word as u64 * 8));
        }
    }
}

fn without_a_flush_stores_are_counted_soon() {
    let directory = tempfile::tempdir().unwrap();
    let media = media(16 * MIB, 16 * MIB);
    let config = cxl_cram_device::hdm::fuse::FuseConfig {
        flush_interval: std::time::Duration::from_millis(1),
        ..config(directory.path())
    };
    let window = FuseWindow::new(config, Arc::clone(&media)).unwrap();
    let setup = Setup { media, window, directory };
    setup.client().noise(0, 10);
    // Ends only when the background write-back has come by.
    while setup.media.occupancy_now().usage.used < 10 * PAGE {
        thread::yield_now();
    }
}

fn a_flush_that_takes_too_long_is_not_waited_for_and_goes_on() {
    let setup = Setup::new(16 * MIB, 4096);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    setup.media.add_listener({
        let gate = Arc::clone(&gate);
        // In the window's own handler: nothing is written back until this returns.
        move |event| {
            if let MediaEvent::Overflow { .. } = event {
                let mut open = gate.0.lock();
                while !*open {
                    gate.1.wait(&mut open);
                }
            }
        }
    });
    let mut client = setup.client();
    client.noise(0, 100);
    let stuck = setup.media.occupancy();
    assert!(stuck.lag > 0 && stuck.lag <= 100 * PAGE, "{stuck:?}");
    assert!(setup.media.occupancy_lagging().lag > 0);
    *gate.0.lock() = true;
    gate.1.notify_all();
    // Without another request.
    while setup.media.occupancy_now().overflows < 99 {
        thread::yield_now();
    }
    assert_eq!(setup.media.occupancy().lag, 0);
}

fn filling_through_the_window_crosses_low_and_zeroing_crosses_high() {
    let setup = Setup::new(16 * MIB, 8 * MIB);
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    setup.media.add_listener(move |event| heard.lock().push(event));
    let mut client = setup.client();
    client.noise(0, 8 * MIB / PAGE * 95 / 100);
    assert!(setup.media.occupancy().blocked);
    setup.media.zero(0..16 * MIB).unwrap();
    assert!(!setup.media.occupancy().blocked);
    assert_eq!(*events.lock(), [MediaEvent::Crossed(Crossing::Low), MediaEvent::Crossed(Crossing::High)]);
}

fn a_page_the_medium_lost_shows_the_pattern_to_the_client_that_stored_it() {
    let setup = Setup::new(16 * MIB, MIB);
    let mut client = setup.client();
    let pages = 300;
    client.noise(0, pages);
    setup.window.settle();
    let mut lost = 0;
    for page in 0..pages {
        let poisoned = !setup.media.poison_list(page * PAGE..(page + 1) * PAGE).is_empty();
        let expected = if poisoned { POISON_PATTERN } else { noise_word(page * PAGE) };
        assert_eq!(client.load(page * PAGE), expected, "page {page}");
        lost += u64::from(poisoned);
    }
    let occupancy = setup.media.occupancy();
    assert!(lost >= pages - 256, "{lost} of {pages} pages lost in a medium of 256");
    assert_eq!(occupancy.poisoned, lost * PAGE);
    assert_eq!(occupancy.overflows, lost);
}

fn a_zeroed_page_stays_zero_although_it_was_resident_and_dirty() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    client.noise(0, 64);
    setup.media.zero(0..32 * PAGE).unwrap();
    setup.window.flush();
    for page in 0..64 {
        let expected = if page < 32 { 0 } else { noise_word(page * PAGE) };
        assert_eq!(client.load(page * PAGE), expected, "page {page}");
    }
    setup.media.zero(32 * PAGE..64 * PAGE).unwrap();
    assert_eq!(setup.media.occupancy().usage.used, 0);
}

fn poison_injected_into_a_dirty_resident_page_is_seen_and_only_its_line_is_lost() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    client.noise(0, 2);
    setup.media.inject_poison(PAGE + 64).unwrap();
    assert_eq!(client.load(PAGE + 64), POISON_PATTERN);
    assert_eq!(client.load(PAGE + 128), noise_word(PAGE + 128));
    // A store beside it does not heal it, nor one to a part of it; stores to all of it do.
    client.store(PAGE + 128, 1);
    setup.window.flush();
    let record = PoisonRecord { dpa: PAGE + 64, length: 64, source: PoisonSource::Injected };
    assert_eq!(setup.media.poison_list(0..16 * MIB), [record]);
    for word in 0..8 {
        assert_eq!(setup.media.poison_list(0..16 * MIB), [record], "word {word}");
        client.store(PAGE + 64 + word * 8, 2);
        setup.window.flush();
    }
    assert_eq!(setup.media.poison_list(0..16 * MIB), []);

    setup.media.inject_poison(0).unwrap();
    setup.media.clear_poison(0, &[7; 64]).unwrap();
    assert_eq!(client.load(0), u64::from_le_bytes([7; 8]));
    assert_eq!(client.load(64), noise_word(64));
}

fn a_load_of_a_poisoned_page_is_reported_when_it_faults_and_not_while_resident() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let heard = Arc::new(Mutex::new(Vec::new()));
    setup.media.add_listener({
        let heard = Arc::clone(&heard);
        move |event| heard.lock().push(event)
    });
    let mut client = setup.client();
    client.noise(0, 2);
    setup.media.inject_poison(PAGE + 64).unwrap();
    setup.window.flush();
    assert_eq!(*heard.lock(), [], "the device itself loads nothing");
    client.load(PAGE + 128);
    client.load(PAGE + 64);
    let told = MediaEvent::PoisonRead { dpa: PAGE + 64, length: 64 };
    assert_eq!(*heard.lock(), [told]);
    setup.window.invalidate(PAGE..2 * PAGE);
    client.load(PAGE + 128);
    assert_eq!(*heard.lock(), [told, told]);
}

fn accesses_by_message_and_by_mapping_agree() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    client.store(PAGE, 5);
    let mut word = [0; 8];
    setup.window.read(PAGE, &mut word);
    assert_eq!(u64::from_le_bytes(word), 5);
    setup.window.write(3 * PAGE - 4, &[0xff; 8]);
    assert_eq!(client.load(3 * PAGE), 0xffff_ffff);
}

fn the_file_cannot_be_cut_removed_or_joined_by_another() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let path = window_file(setup.directory.path());
    let file = File::options().write(true).open(&path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 16 * MIB);
    assert!(file.set_len(0).is_err());
    assert!(File::options().write(true).truncate(true).open(&path).is_err());
    assert!(fs::remove_file(&path).is_err());
    assert!(File::create(path.with_file_name("other")).is_err());
    assert!(fs::rename(&path, path.with_file_name("other")).is_err());
    assert_eq!(file.metadata().unwrap().len(), 16 * MIB);
}

fn a_cache_too_small_to_evict_from_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.cache_bytes = FuseWindow::MIN_CACHE - 1;
    let refused = FuseWindow::new(config, media(16 * MIB, 16 * MIB));
    assert!(matches!(refused, Err(WindowError::CacheTooSmall { .. })));
}

fn nothing_is_left_behind_even_when_a_client_still_maps_it() {
    let Setup { media, window, directory } = Setup::new(16 * MIB, 16 * MIB);
    let mut client = support::Client::new(&window_file(directory.path()));
    client.store(0, 1);
    drop(window);
    assert_eq!(mounts_below(directory.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // The last write-back went before the end.
    let mut block = [0; 4096];
    media.load(0, &mut block);
    assert_eq!(block[0], 1);
}
