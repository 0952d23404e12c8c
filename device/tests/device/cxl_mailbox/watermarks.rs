//! The watermarks as the compressed-RAM driver meets them: vector 12 "lthresh" and vector 13 "hthresh".

use cxl_cram_device::{
    cxl::{Injector, lost_interrupts::LoseError},
    hdm::media::Crossing,
};

use super::{
    driver::{Device, PAGE, words},
    events::{INFORMATION, MEMORY_MODULE, WARNING, get},
};

const LOW: u16 = 12;
const HIGH: u16 = 13;
/// Low at 10 free pages, high at 20.
const PHYSICAL: u64 = 100 * PAGE;

fn counts(device: &Device) -> (usize, usize) {
    (device.bell.count(LOW), device.bell.count(HIGH))
}

fn free(device: &Device) -> u64 {
    device.media.occupancy().usage.free()
}

/// Stores or frees blocks until free media is on the other side of a watermark.
fn go_low(device: &Device) {
    (0..100).take_while(|_| !device.media.occupancy().blocked).for_each(|block| device.fill(block..block + 1));
    assert!(free(device) < 10 * PAGE);
}

fn go_high(device: &Device) {
    device.media.zero(0..100 * PAGE).unwrap();
    assert!(free(device) > 20 * PAGE);
}

#[test]
fn a_crossing_is_one_interrupt_and_one_record() {
    let device = Device::with_physical(PHYSICAL);
    go_low(&device);
    assert_eq!(counts(&device), (1, 0));
    device.fill(95..97);
    assert_eq!(counts(&device), (1, 0), "further down is no crossing");
    let warnings = get(&device, WARNING).records;
    assert_eq!((warnings.len(), &warnings[0][..16]), (1, &MEMORY_MODULE[..]));
    assert_eq!((warnings[0][0x30], warnings[0][0x31]), (0, 1), "health status change: maintenance needed");
    go_high(&device);
    assert_eq!(counts(&device), (1, 1));
    let information = get(&device, INFORMATION).records;
    assert_eq!((information.len(), &information[0][..16]), (1, &MEMORY_MODULE[..]));
    assert_eq!(information[0][0x31], 0, "nothing to maintain any more");
    go_low(&device);
    go_high(&device);
    assert_eq!(counts(&device), (2, 2));
}

#[test]
fn between_the_watermarks_no_interrupt_is_raised() {
    let device = Device::with_physical(PHYSICAL);
    go_low(&device);
    // Up over low, but not over high, and down again.
    for _ in 0..3 {
        let mut block = 0;
        while free(&device) < 15 * PAGE {
            device.media.zero(block * PAGE..(block + 1) * PAGE).unwrap();
            block += 1;
        }
        device.fill(0..block);
    }
    assert_eq!(counts(&device), (1, 0));
}

#[test]
fn an_undelivered_low_crossing_is_raised_when_the_vector_is_armed() {
    let device = Device::with_physical(PHYSICAL);
    device.bell.listen(false);
    go_low(&device);
    device.bell.listen(true);
    device.type3.vector_armed(HIGH);
    assert_eq!(counts(&device), (0, 0));
    device.type3.vector_armed(LOW);
    assert_eq!(counts(&device), (1, 0));
    device.type3.vector_armed(LOW);
    assert_eq!(counts(&device), (2, 0), "as long as it is true, every driver that arms hears it");
    assert_eq!(get(&device, WARNING).records.len(), 1, "the record is of the crossing, not of the interrupt");
}

#[test]
fn a_crossing_undone_before_its_vector_was_armed_is_not_raised() {
    let device = Device::with_physical(PHYSICAL);
    device.bell.listen(false);
    go_low(&device);
    go_high(&device);
    device.bell.listen(true);
    device.type3.vector_armed(LOW);
    assert_eq!(counts(&device), (0, 0));
    device.type3.vector_armed(HIGH);
    assert_eq!(counts(&device), (0, 1), "the state now");
    device.type3.vector_armed(HIGH);
    assert_eq!(counts(&device), (0, 1), "once");
}

#[test]
fn a_fresh_device_raises_nothing_when_its_vectors_are_armed() {
    let device = Device::with_physical(PHYSICAL);
    (0..16).for_each(|vector| device.type3.vector_armed(vector));
    assert_eq!(device.bell.take(), super::driver::SILENCE);
}

#[test]
fn after_a_reset_a_blocked_medium_is_still_reported() {
    let device = Device::with_physical(PHYSICAL);
    go_low(&device);
    device.type3.reset();
    device.bell.take();
    device.type3.vector_armed(LOW);
    assert_eq!(counts(&device), (1, 0));
}

#[test]
fn an_injected_watermark_is_reported_like_a_real_one() {
    let device = Device::new();
    device.output(0x0103, &[1, 1, 1, 1]);
    device.type3.inject_crossing(Crossing::Low);
    assert_eq!(device.bell.take(), [LOW, 3]);
    device.type3.inject_crossing(Crossing::High);
    assert_eq!(device.bell.take(), [HIGH, 2]);
    assert_eq!(get(&device, WARNING).records[0][0x31], 1);
    assert_eq!(get(&device, INFORMATION).records[0][0x31], 0);
    assert!(!device.media.occupancy().blocked, "the medium itself is as it was");
    device.bell.listen(false);
    device.type3.inject_crossing(Crossing::Low);
    device.bell.listen(true);
    device.type3.vector_armed(LOW);
    assert_eq!(device.bell.take(), [LOW]);
}

#[test]
fn set_watermarks_reports_a_resulting_crossing_at_once() {
    let device = Device::with_physical(PHYSICAL);
    device.fill(0..50);
    assert_eq!(counts(&device), (0, 0));
    device.output(0xc001, &words(&[60 * PAGE, 70 * PAGE]));
    assert_eq!(counts(&device), (1, 0));
    device.output(0xc001, &words(&[10 * PAGE, 20 * PAGE]));
    assert_eq!(counts(&device), (1, 1));
}

#[test]
fn an_interrupt_that_is_lost_does_not_come_later() {
    let device = Device::with_physical(PHYSICAL);
    assert_eq!(device.type3.lose_interrupt(HIGH, 1), Ok(0));
    go_low(&device);
    go_high(&device);
    assert_eq!(counts(&device), (1, 0));
    device.type3.vector_armed(HIGH);
    device.type3.reset();
    assert_eq!(counts(&device), (1, 0), "it counts as delivered");
    go_low(&device);
    go_high(&device);
    assert_eq!(counts(&device), (2, 1), "one was to be lost");
}

#[test]
fn a_request_to_lose_interrupts_replaces_the_one_before() {
    let device = Device::with_physical(PHYSICAL);
    assert_eq!(device.type3.lose_interrupt(LOW, 5), Ok(0));
    assert_eq!(device.type3.lose_interrupt(LOW, 0), Ok(5));
    assert_eq!(device.type3.lose_interrupt(HIGH, u64::MAX), Ok(0));
    assert_eq!(device.type3.lose_interrupt(16, 1), Err(LoseError::NoVector(16)));
    go_low(&device);
    go_high(&device);
    assert_eq!(counts(&device), (1, 0));
}
