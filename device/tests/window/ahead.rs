//! More data than the cache holds, and what is read ahead of the client.

use std::{ops::Range, sync::Arc, thread};

use crate::{
    support::{Client, MIB, PAGE, Setup, config, media, named, noise_word},
    traces,
};
use cxl_cram_device::{
    hdm::{
        Window,
        fuse::{FuseConfig, FuseWindow},
        media::MediaEvent,
    },
    vfio_user::Stop,
};
use parking_lot::Mutex;

/// The tests of this file. All need `/dev/fuse`.
pub(crate) const TESTS: &[(&str, fn())] = named![
    random_access_to_more_than_the_cache_holds_loads_little_more_than_an_lru_of_pages,
    scattered_hot_pages_load_little_more_than_an_lru_of_pages,
    zipf_loads_little_more_than_an_lru_of_pages,
    a_stream_is_read_ahead_and_its_pages_are_counted_when_used,
    no_store_is_lost_to_a_page_that_is_read_ahead,
    with_read_ahead_off_only_pages_that_the_client_touched_are_resident,
    a_poisoned_page_is_not_read_ahead,
];

/// Stores to so many pages, past the window: none is resident then.
fn fill(setup: &Setup, pages: u64) {
    for page in 0..pages {
        let mut block = [0; PAGE as usize];
        for (word, bytes) in (0..).zip(block.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&noise_word(page * PAGE + word * 8).to_ne_bytes());
        }
        setup.media.store(page, &block);
    }
}

/// A trace on the smallest cache, by default settings: at most 1.3 times the pages an LRU would load.
fn loads_little_more_than_lru(name: &str) {
    let setup = Setup::new(64 * MIB, 64 * MIB);
    let mut client = setup.client();
    fill(&setup, traces::PAGES as u64);
    let (index, (_, trace)) = traces::traces().into_iter().enumerate().find(|(_, (other, _))| *other == name).unwrap();
    client.ask(&format!("trace {index} 0"));
    let lru = traces::lru_misses(&trace, (FuseWindow::MIN_CACHE / PAGE) as usize);
    let loaded = setup.window.resident().faults + setup.window.resident().prefetched;
    assert!(loaded * 10 <= lru * 13, "{loaded} pages loaded, {lru} by an LRU");
}

fn random_access_to_more_than_the_cache_holds_loads_little_more_than_an_lru_of_pages() {
    loads_little_more_than_lru("random");
}

fn scattered_hot_pages_load_little_more_than_an_lru_of_pages() {
    loads_little_more_than_lru("90 % in 2 MiB, scattered");
}

fn zipf_loads_little_more_than_an_lru_of_pages() {
    loads_little_more_than_lru("zipf");
}

/// Waits until so many pages have been read ahead; there are never more.
fn await_prefetched(setup: &Setup, pages: u64) {
    while setup.window.resident().prefetched < pages {
        thread::yield_now();
    }
    assert_eq!(setup.window.resident().prefetched, pages);
}

fn load_all(client: &mut Client, pages: Range<u64>) {
    for page in pages {
        assert_eq!(client.load(page * PAGE), noise_word(page * PAGE), "page {page}");
    }
}

fn a_stream_is_read_ahead_and_its_pages_are_counted_when_used() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    // More than fits the cache: neighbours are not read.
    fill(&setup, 2048);
    load_all(&mut client, 0..3);
    await_prefetched(&setup, 7);
    load_all(&mut client, 3..7);
    assert_eq!((setup.window.resident().faults, setup.window.resident().prefetched_used), (3, 0));
    // The marker.
    load_all(&mut client, 7..8);
    await_prefetched(&setup, 7 + 15);
    assert_eq!((setup.window.resident().faults, setup.window.resident().prefetched_used), (4, 4));
}

fn no_store_is_lost_to_a_page_that_is_read_ahead() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let mut client = setup.client();
    let done = Stop::new().unwrap();
    let added = thread::scope(|scope| {
        // Eviction takes pages already; take some at once besides, under the streams' feet.
        scope.spawn(|| {
            for part in (0..16).cycle() {
                if done.is_triggered() {
                    break;
                }
                setup.window.invalidate(part * MIB..(part + 1) * MIB);
            }
        });
        let _done = done.on_drop();
        client.ask("streams 4 4")
    });
    let resident = setup.window.resident();
    assert!(resident.prefetched > 0 && resident.evicted > 0, "{resident:?}");
    assert_eq!(setup.sum_of_counters(16 * MIB), added);
}

fn with_read_ahead_off_only_pages_that_the_client_touched_are_resident() {
    let directory = tempfile::tempdir().unwrap();
    let media = media(16 * MIB, 16 * MIB);
    let config = FuseConfig { readahead: PAGE, ..config(directory.path()) };
    let window = FuseWindow::new(config, Arc::clone(&media)).unwrap();
    let setup = Setup { media, window, directory };
    let mut client = setup.client();
    for page in 0..200 {
        client.load(page * PAGE);
    }
    let resident = setup.window.resident();
    assert_eq!((resident.faults, resident.prefetched, resident.bytes), (200, 0, 200 * PAGE));
    assert_eq!(client.ask("resident 0 0"), 200);
}

fn a_poisoned_page_is_not_read_ahead() {
    let setup = Setup::new(16 * MIB, 16 * MIB);
    let heard = Arc::new(Mutex::new(Vec::new()));
    setup.media.add_listener({
        let heard = Arc::clone(&heard);
        move |event| heard.lock().push(event)
    });
    let mut client = setup.client();
    fill(&setup, 2048);
    setup.media.inject_poison(4 * PAGE).unwrap();
    load_all(&mut client, 0..3);
    // Of 3..7 none, 7 is the marker.
    await_prefetched(&setup, 3);
    assert_eq!(*heard.lock(), []);
    client.load(4 * PAGE);
    assert_eq!(*heard.lock(), [MediaEvent::PoisonRead { dpa: 4 * PAGE, length: 64 }]);
}
