//! Health, and the alerts that a host may program.

use super::driver::{Device, INVALID_INPUT, PAGE};

const GET_ALERTS: u16 = 0x4201;
const SET_ALERTS: u16 = 0x4202;

/// Life used, over-temperature, under-temperature, corrected volatile errors.
fn alerts(valid: u8, enable: u8, life_used: u8, over: i16, under: i16, corrected: u16) -> Vec<u8> {
    let temperatures = [over.to_le_bytes(), under.to_le_bytes()].concat();
    [&[valid, enable, life_used, 0][..], &temperatures, &corrected.to_le_bytes(), &[0, 0]].concat()
}

#[test]
fn health_reports_maintenance_needed_while_allocation_is_blocked() {
    let device = Device::with_physical(100 * PAGE);
    let well = device.output(0x4200, &[]);
    assert_eq!((well.len(), well[0], well[1]), (0x12, 0, 0), "nothing to maintain, media normal");
    device.fill(0..95);
    assert!(device.media.occupancy().blocked);
    assert_eq!(device.output(0x4200, &[])[0], 1);
    device.media.zero(0..95 * PAGE).unwrap();
    assert_eq!(device.output(0x4200, &[]), well);
}

#[test]
fn an_alert_is_kept_as_it_was_programmed() {
    let device = Device::new();
    let fresh = device.output(GET_ALERTS, &[]);
    assert_eq!((fresh.len(), fresh[0], fresh[1]), (0x10, 0, 0xf), "none enabled, four programmable");
    device.output(SET_ALERTS, &alerts(0xf, 0x5, 60, 50, 10, 1000));
    let set = device.output(GET_ALERTS, &[]);
    assert_eq!(set[0], 0x5);
    assert_eq!(set[2], fresh[2], "the critical ones stay");
    assert_eq!(set[4..8], fresh[4..8]);
    assert_eq!(set[3], 60);
    assert_eq!(set[8..14], [&50_u16.to_le_bytes()[..], &10_u16.to_le_bytes(), &1000_u16.to_le_bytes()].concat());
    device.output(SET_ALERTS, &alerts(0x4, 0x0, 1, 1, 20, 1));
    let part = device.output(GET_ALERTS, &[]);
    assert_eq!((part[0], part[3], part[10]), (0x1, 60, 20), "only what is valid changes");
    device.type3.reset();
    assert_eq!(device.output(GET_ALERTS, &[]), fresh);
}

#[test]
fn an_alert_beyond_its_critical_threshold_is_refused_whole() {
    let device = Device::new();
    device.output(SET_ALERTS, &alerts(0xf, 0xf, 60, 50, 10, 1));
    let before = device.output(GET_ALERTS, &[]);
    for refused in [
        alerts(0xf, 0xf, 75, 50, 10, 2),
        alerts(0xf, 0xf, 60, 70, 10, 2),
        alerts(0xf, 0xf, 60, 50, 0, 2),
        alerts(0xf, 0xf, 60, 50, -5, 2),
        alerts(0x1f, 0xf, 60, 50, 10, 2),
        alerts(0x80, 0, 0, 0, 0, 0),
    ] {
        assert_eq!(device.code(SET_ALERTS, &refused), INVALID_INPUT, "{refused:x?}");
        assert_eq!(device.output(GET_ALERTS, &[]), before);
    }
}
