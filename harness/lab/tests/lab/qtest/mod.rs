//! The device on real QEMU without a guest: the test itself is firmware and processor (`-accel qtest`).

mod machine;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use self::machine::{BAR0, BAR2, CONFIG, Machine};
use cxl_cram_device::{
    cxl::{Msix, Type3, Type3Config},
    hdm::{
        Window,
        fuse::{FuseConfig, FuseWindow},
        media::{Media, MediaConfig, Threshold, Watermarks},
        trap::TrapWindow,
    },
    serve::{Board, MsixWire},
    store::Codec,
    vfio_user::{Interrupts, Server, Stop},
};
use cxl_cram_lab::provision::{self, Progress};

const MIB: u64 = 1 << 20;

/// A device served from this process.
struct Served {
    media: Arc<Media>,
    run: tempfile::TempDir,
    stop: Stop,
    server: Option<JoinHandle<()>>,
}

impl Served {
    fn new(window: fn(Arc<Media>) -> Arc<dyn Window>) -> Self {
        let run = tempfile::tempdir().unwrap();
        let watermarks = Watermarks { low: Threshold::Percent(50.0), high: Threshold::Percent(60.0) };
        let config = MediaConfig { capacity: 256 * MIB, physical: MIB, codec: Codec::Lz4, watermarks };
        let media = Media::new(&config).unwrap();
        let interrupts = Arc::new(Interrupts::new());
        let msix: Arc<dyn Msix> = Arc::new(MsixWire::new(&interrupts));
        let function = Type3::new(&Type3Config::default(), Arc::clone(&media), msix);
        let board = Board::new(function, Arc::clone(&media), window(Arc::clone(&media)));
        let stop = Stop::new().unwrap();
        let server = Server::bind(run.path().join("device.sock")).unwrap();
        let thread = thread::spawn({
            let stop = stop.clone();
            move || server.run(&*board, &interrupts, &stop).unwrap()
        });
        Self { media, run, stop, server: Some(thread) }
    }

    fn machine(&self) -> Machine {
        let qemu = provision::qemu(&provision::Options::default(), &Progress::stderr()).unwrap();
        let mut machine = Machine::start(qemu.command(), &self.run.path().join("device.sock"), self.run.path());
        machine.firmware();
        machine
    }

    fn stop(&mut self) {
        self.stop.trigger();
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

fn trap(media: Arc<Media>) -> Arc<dyn Window> {
    TrapWindow::new(media)
}

fn fuse(media: Arc<Media>) -> Arc<dyn Window> {
    let config =
        FuseConfig { cache_bytes: 16 * MIB, flush_interval: Duration::from_millis(50), ..FuseConfig::default() };
    FuseWindow::new(config, media).unwrap()
}

/// Bytes that do not compress, a block of them for each seed.
fn noise(seed: u64) -> [u8; 4096] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[test]
fn a_cxl_memory_device_appears_behind_the_root_port() {
    let served = Served::new(trap);
    let mut machine = served.machine();
    assert_eq!(machine.readl(CONFIG), 0x0d93_8086);
    assert_eq!(machine.readl(CONFIG + 8) >> 8, 0x050210);
    machine.capability(0x10);
    machine.capability(0x11);
}

#[test]
fn the_extended_capabilities_hold_every_cxl_dvsec_the_kernel_looks_for() {
    let served = Served::new(trap);
    let mut machine = served.machine();
    let (mut at, mut dvsecs, mut others) = (0x100, Vec::new(), Vec::new());
    while at != 0 {
        let header = machine.readl(CONFIG + at);
        if header & 0xffff == 0x23 {
            assert_eq!(machine.readl(CONFIG + at + 4) & 0xffff, 0x1e98, "DVSEC vendor at {at:#x}");
            dvsecs.push(machine.readl(CONFIG + at + 8) & 0xffff);
        } else {
            others.push(header & 0xffff);
        }
        at = u64::from(header >> 20);
    }
    dvsecs.sort_unstable();
    assert_eq!(dvsecs, [0, 5, 7, 8], "CXL device, GPF, flex bus port, register locator");
    // QEMU itself hides what it does not pass through; the serial number and DOE must be there.
    for id in [0x03, 0x2e] {
        assert!(others.contains(&id), "extended capability {id:#x} is not among {others:x?}");
    }
}

#[test]
fn the_mailbox_answers_identify_over_bar0() {
    let served = Served::new(trap);
    let mut machine = served.machine();
    let registers = BAR0 + 0x1_0000;
    let capabilities = machine.readq(registers) >> 32 & 0xffff;
    let mailbox = (1..=capabilities)
        .map(|n| registers + 16 * n)
        .find(|&at| machine.readl(at) & 0xffff == 2)
        .map(|at| registers + u64::from(machine.readl(at + 4)))
        .expect("a primary mailbox");
    machine.writeq(mailbox + 8, 0x4000);
    machine.writel(mailbox + 4, 1);
    assert_eq!(machine.readl(mailbox + 4) & 1, 0, "the doorbell is clear again");
    assert_eq!(machine.readq(mailbox + 0x10) >> 32 & 0xffff, 0, "return code");
    assert_eq!(machine.readq(mailbox + 0x20 + 0x10), 1, "total capacity in units of 256 MiB");
}

fn stores_to_bar2_reach_the_store_and_come_back(window: fn(Arc<Media>) -> Arc<dyn Window>) {
    let served = Served::new(window);
    let mut machine = served.machine();
    for block in 0..8 {
        machine.write(BAR2 + 4096 * block, &noise(block));
    }
    machine.writeq(BAR2 + 256 * MIB - 8, 0x1122_3344_5566_7788);
    // Trapped stores are posted; a load comes after them all.
    assert_eq!(machine.readq(BAR2 + 256 * MIB - 8), 0x1122_3344_5566_7788);
    let usage = served.media.occupancy().usage;
    assert_eq!(usage.raw_blocks, 8);
    assert_eq!(usage.compressed_blocks, 1);
    for block in 0..8 {
        assert_eq!(machine.read(BAR2 + 4096 * block, 4096), noise(block), "block {block}");
    }
    assert_eq!(machine.readq(BAR2 + 4096 * 9), 0, "what was never written reads as zeros");
}

#[test]
fn stores_through_the_trapped_window_reach_the_store_and_come_back() {
    stores_to_bar2_reach_the_store_and_come_back(trap);
}

#[test]
fn stores_through_the_fuse_window_reach_the_store_and_come_back() {
    stores_to_bar2_reach_the_store_and_come_back(fuse);
}

#[test]
fn each_watermark_crossing_is_one_msix_message() {
    let served = Served::new(trap);
    let mut machine = served.machine();
    machine.enable_msix(16);
    for block in 0..200 {
        machine.write(BAR2 + 4096 * block, &noise(block));
    }
    machine.await_message(12);
    assert!(served.media.occupancy().blocked);
    served.media.zero(0..4096 * 200).unwrap();
    machine.await_message(13);
    assert!(!served.media.occupancy().blocked);
    // Both words were taken away above; a second message of either would show again.
    assert_eq!(machine.readl(machine::MSI_RAM + 4 * 12), 0);
    assert_eq!(machine.readl(machine::MSI_RAM + 4 * 13), 0);
}

#[test]
fn a_crossing_that_nobody_listened_to_is_told_when_msix_is_turned_on() {
    let served = Served::new(trap);
    let mut machine = served.machine();
    for block in 0..200 {
        machine.write(BAR2 + 4096 * block, &noise(block));
    }
    machine.readq(BAR2);
    assert!(served.media.occupancy().blocked);
    machine.enable_msix(16);
    machine.await_message(12);
}

#[test]
fn what_no_longer_fits_is_poisoned_and_the_rest_is_kept() {
    let served = Served::new(fuse);
    let mut machine = served.machine();
    // 1 MiB of media holds 256 raw blocks.
    for block in 0..300 {
        machine.write(BAR2 + 4096 * block, &noise(block));
    }
    let occupancy = served.media.occupancy();
    assert_eq!(occupancy.poisoned, 4096 * 44);
    assert_eq!(occupancy.usage.used, MIB);
    served.media.occupancy();
    let lost = served.media.poison_list(0..256 * MIB);
    for block in 0..300 {
        let dpa = 4096 * block;
        if lost.iter().any(|record| record.dpa <= dpa && dpa < record.dpa + record.length) {
            continue;
        }
        assert_eq!(machine.read(BAR2 + dpa, 4096), noise(block), "block {block}");
    }
}

#[test]
fn a_qemu_that_is_killed_leaves_a_device_for_the_next_one_that_starts_empty() {
    let served = Served::new(fuse);
    let mut machine = served.machine();
    machine.write(BAR2, &noise(1));
    machine.kill();
    assert_eq!(served.media.occupancy().usage.raw_blocks, 1, "what the guest left can be looked at");
    let mut machine = served.machine();
    assert_eq!(machine.readq(BAR2), 0);
    assert_eq!(served.media.occupancy().usage.used, 0);
}

#[test]
fn registers_read_as_all_ones_when_the_device_is_gone() {
    let mut served = Served::new(trap);
    let mut machine = served.machine();
    served.stop();
    assert_eq!(machine.readl(BAR0 + 0x1_0000), u32::MAX);
}
