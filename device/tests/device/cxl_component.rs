//! The component register block as Linux maps it, and the HDM decoders as it programs them.

use cxl_cram_device::cxl::{
    component::ComponentRegisters,
    hdm_decoder::Decoder,
    ras::{Correctable, Uncorrectable},
};
use proptest::prelude::*;

const GRANULE: u64 = 256 << 20;
const CAPACITY: u64 = 8 * GRANULE;
/// A base above 4 GiB, as a CXL window has.
const WINDOW: u64 = 0xff_4000_0000;

const LOCK: u32 = 1 << 8;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const HOST_ONLY: u32 = 1 << 12;

struct Component {
    registers: ComponentRegisters,
    /// Where the HDM decoder structure was found.
    hdm: u64,
    /// Where the device's memory is, if that is fixed.
    window: Option<u64>,
}

impl Component {
    fn new() -> Self {
        let mut component = Self { registers: ComponentRegisters::new(CAPACITY), hdm: 0, window: None };
        component.hdm = component.structure(5);
        component
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.registers.write(offset, &value.to_le_bytes(), self.window);
    }

    fn structure(&self, id: u32) -> u64 {
        let count = u64::from(self.read(0x1000) >> 24);
        let mut entries = (1..=count).map(|i| self.read(0x1000 + 4 * i));
        let entry = entries.find(|entry| entry & 0xffff == id).expect("the structure exists");
        0x1000 + u64::from(entry >> 20)
    }

    fn decoder(&self, n: u64) -> u64 {
        self.hdm + 0x10 + 0x20 * n
    }

    fn control(&self, n: u64) -> u32 {
        self.read(self.decoder(n) + 0x10)
    }

    /// Programs a decoder as Linux does, high halves first, without the control register.
    fn program(&self, n: u64, base: u64, size: u64, skip: u64) {
        let at = self.decoder(n);
        for (register, value) in [(0x00, base), (0x08, size), (0x14, skip)] {
            self.write(at + register + 4, (value >> 32) as u32);
            self.write(at + register, value as u32);
        }
    }

    fn set_control(&self, n: u64, control: u32) {
        self.write(self.decoder(n) + 0x10, control);
    }

    /// Programs and commits; returns whether it committed. Exactly one of Committed and Error must answer.
    fn commit(&self, n: u64, base: u64, size: u64, control: u32) -> bool {
        self.program(n, base, size, 0);
        self.set_control(n, control | COMMIT);
        let answer = self.control(n) & (COMMITTED | ERROR);
        assert!(answer == COMMITTED || answer == ERROR, "answer {answer:#x}");
        answer == COMMITTED
    }
}

fn decoder(hpa: std::ops::Range<u64>, dpa: std::ops::Range<u64>) -> Decoder {
    Decoder { hpa, dpa, ways: 1, granularity: 256, locked: false }
}

#[test]
fn the_capability_array_leads_to_ras_link_and_hdm_decoders() {
    let component = Component::new();
    let header = component.read(0x1000);
    assert_eq!(header, 0x0311_0001, "id 1, versions 1 and 1, three structures");
    let mut spans = [(component.structure(2), 0x58), (component.structure(4), 0x50), (component.structure(5), 0x90)];
    spans.sort_unstable();
    assert!(spans[0].0 >= 0x1000 + 4 * 4, "the structures lie behind the array");
    assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "no overlap: {spans:x?}");
    assert!(spans[2].0 + spans[2].1 <= 0x2000);
}

#[test]
fn the_rest_of_the_block_reads_zero() {
    let component = Component::new();
    component.write(0x0, u32::MAX);
    component.write(0xfffc, u32::MAX);
    assert_eq!((component.read(0x0), component.read(0x2000), component.read(0xfffc)), (0, 0, 0));
    let mut across = [0xee; 8];
    component.registers.read(0xffc, &mut across);
    assert_eq!(across, [0, 0, 0, 0, 1, 0, 0x11, 3], "an access may straddle the start of the registers");
}

#[test]
fn ras_errors_are_masked_at_reset_and_linux_unmasks_them() {
    let component = Component::new();
    let ras = component.structure(2);
    assert_eq!((component.read(ras), component.read(ras + 0xc)), (0, 0), "no error has happened");
    assert_eq!((component.read(ras + 0x4), component.read(ras + 0x10)), (0x1_cfff, 0x7f));
    component.write(ras + 0x4, 0);
    component.write(ras + 0x10, 0);
    component.write(ras, u32::MAX);
    assert_eq!((component.read(ras + 0x4), component.read(ras + 0x10), component.read(ras)), (0, 0, 0));
    component.registers.reset();
    assert_eq!(component.read(ras + 0x4), 0x1_cfff);
}

#[test]
fn an_injected_error_stands_until_it_is_cleared_and_the_first_leaves_its_header() {
    let component = Component::new();
    let ras = component.structure(2);
    let header = |word| [word; 16];
    component.registers.uncorrectable(Uncorrectable::MemDataEcc, &header(0x1111_2222));
    component.registers.uncorrectable(Uncorrectable::CxlIdeRx, &header(0x3333_4444));
    component.registers.correctable(Correctable::Physical);
    let first =
        |component: &Component| (component.read(ras + 0x14), component.read(ras + 0x18), component.read(ras + 0x54));
    assert_eq!((component.read(ras), component.read(ras + 0xc)), (1 << 7 | 1 << 16, 1 << 6));
    assert_eq!(first(&component), (7, 0x1111_2222, 0x1111_2222));
    component.write(ras, 1 << 7 | 1 << 16);
    component.write(ras + 0xc, 1 << 6);
    assert_eq!((component.read(ras), component.read(ras + 0xc)), (0, 0));
    component.registers.uncorrectable(Uncorrectable::CxlIdeRx, &header(0x3333_4444));
    assert_eq!(first(&component), (16, 0x3333_4444, 0x3333_4444));
}

#[test]
fn there_are_four_decoders_for_a_host_only_endpoint() {
    let component = Component::new();
    let capability = component.read(component.hdm);
    assert_eq!(capability & 0xf, 2, "four decoders");
    assert_eq!(capability & 0xf0, 0, "an endpoint has no targets");
    assert_eq!(capability >> 21 & 0x3, 2, "host-only coherent");
    component.write(component.hdm + 4, u32::MAX);
    assert_eq!(component.read(component.hdm + 4), 0x2, "only the enable bit is writable");
}

#[test]
fn decoders_commit_in_order_and_share_out_the_device() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, 2 * GRANULE, HOST_ONLY));
    component.program(1, WINDOW + 4 * GRANULE, GRANULE, GRANULE);
    component.set_control(1, COMMIT | HOST_ONLY);
    assert_eq!(
        component.registers.decoders(),
        [
            decoder(WINDOW..WINDOW + 2 * GRANULE, 0..2 * GRANULE),
            decoder(WINDOW + 4 * GRANULE..WINDOW + 5 * GRANULE, 3 * GRANULE..4 * GRANULE),
        ]
    );
}

#[test]
fn a_committed_decoder_ignores_writes_to_its_fields() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
    let (state, decoders) = (component.registers.component_state(), component.registers.decoders());
    component.program(0, 0, 2 * GRANULE, GRANULE);
    component.set_control(0, COMMIT | LOCK | 0x23);
    assert_eq!(component.registers.component_state(), state);
    assert_eq!(component.registers.decoders(), decoders);
}

#[test]
fn clearing_commit_uncommits_and_frees_the_fields() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
    component.set_control(0, component.control(0) & !COMMIT);
    assert_eq!(component.control(0), HOST_ONLY);
    assert!(component.registers.decoders().is_empty());
    assert!(component.commit(0, WINDOW + GRANULE, CAPACITY, HOST_ONLY));
}

#[test]
fn an_uncommitted_decoder_leaves_the_ones_above_where_they_were() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
    assert!(component.commit(1, WINDOW + GRANULE, GRANULE, HOST_ONLY));
    component.set_control(0, HOST_ONLY);
    assert_eq!(component.registers.decoders(), [decoder(WINDOW + GRANULE..WINDOW + 2 * GRANULE, GRANULE..2 * GRANULE)]);
    assert!(!component.commit(0, WINDOW, 2 * GRANULE, HOST_ONLY), "its size must not move the one above");
    component.set_control(0, 0);
    component.set_control(1, 0);
    assert!(component.commit(0, WINDOW, 2 * GRANULE, HOST_ONLY));
}

#[test]
fn a_locked_decoder_stays_until_a_conventional_reset() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY | LOCK));
    component.set_control(0, 0);
    component.program(0, 0, 0, 0);
    assert_eq!(component.control(0), HOST_ONLY | LOCK | COMMIT | COMMITTED);
    assert!(component.registers.decoders()[0].locked);
    component.registers.reset();
    assert_eq!(component.control(0), 0);
    assert!(component.registers.decoders().is_empty());
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
}

#[test]
fn bad_programming_is_refused_with_the_error_bit() {
    let good = (WINDOW, GRANULE, HOST_ONLY);
    for (what, (base, size, control)) in [
        ("no size", (WINDOW, 0, HOST_ONLY)),
        ("a size that wraps", (!(GRANULE - 1), 2 * GRANULE, HOST_ONLY)),
        ("more than the capacity", (WINDOW, CAPACITY + GRANULE, HOST_ONLY)),
        ("device coherency", (WINDOW, GRANULE, 0)),
        ("reserved ways", (WINDOW, 16 * GRANULE, HOST_ONLY | 5 << 4)),
        ("reserved granularity", (WINDOW, GRANULE, HOST_ONLY | 7)),
        ("a share that is no multiple of 256 MiB", (WINDOW, GRANULE, HOST_ONLY | 1 << 4)),
    ] {
        let component = Component::new();
        assert!(!component.commit(0, base, size, control), "{what} is refused");
        assert!(component.registers.decoders().is_empty());
        component.set_control(0, component.control(0) & !COMMIT);
        assert_eq!(component.control(0) & (COMMIT | ERROR), 0, "clearing Commit clears the error");
        assert!(component.commit(0, good.0, good.1, good.2), "and after {what} good values commit");
    }
}

#[test]
fn a_refused_commit_needs_a_new_transition() {
    let component = Component::new();
    assert!(!component.commit(0, WINDOW, 0, HOST_ONLY));
    component.program(0, WINDOW, GRANULE, 0);
    component.set_control(0, HOST_ONLY | COMMIT);
    assert_eq!(component.control(0) & (COMMITTED | ERROR), ERROR);
}

#[test]
fn decoders_out_of_order_or_overlapping_are_refused() {
    let component = Component::new();
    assert!(!component.commit(1, WINDOW, GRANULE, HOST_ONLY), "decoder 0 comes first");
    component.set_control(1, 0);
    assert!(component.commit(0, WINDOW, 2 * GRANULE, HOST_ONLY));
    assert!(!component.commit(1, WINDOW + GRANULE, GRANULE, HOST_ONLY), "overlap");
    component.set_control(1, 0);
    assert!(!component.commit(1, WINDOW - 4 * GRANULE, GRANULE, HOST_ONLY), "below the one before");
    component.set_control(1, 0);
    assert!(component.commit(1, WINDOW + 2 * GRANULE, GRANULE, HOST_ONLY));
}

#[test]
fn skipped_device_memory_counts_against_the_capacity() {
    let component = Component::new();
    component.program(0, WINDOW, GRANULE, CAPACITY);
    component.set_control(0, COMMIT | HOST_ONLY);
    assert_eq!(component.control(0) & (COMMITTED | ERROR), ERROR);
    component.set_control(0, 0);
    component.program(0, WINDOW, GRANULE, CAPACITY - GRANULE);
    component.set_control(0, COMMIT | HOST_ONLY);
    assert_eq!(component.registers.decoders()[0].dpa, CAPACITY - GRANULE..CAPACITY);
}

#[test]
fn an_interleaved_decoder_takes_its_share_of_the_device() {
    for (encoding, ways) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (8, 3), (9, 6), (10, 12)] {
        let component = Component::new();
        assert!(component.commit(0, WINDOW, CAPACITY * ways, HOST_ONLY | encoding << 4 | 6));
        let decoder = &component.registers.decoders()[0];
        assert_eq!((decoder.ways, decoder.granularity, decoder.dpa.clone()), (ways, 16384, 0..CAPACITY));
    }
}

#[test]
fn a_decoder_that_a_fixed_window_cannot_follow_is_refused() {
    let mut component = Component::new();
    component.window = Some(WINDOW);
    assert!(!component.commit(0, WINDOW + GRANULE, GRANULE, HOST_ONLY), "DPA 0 is at the window's start");
    component.set_control(0, 0);
    assert!(!component.commit(0, WINDOW, 2 * GRANULE, HOST_ONLY | 1 << 4), "the window is not interleaved");
    component.set_control(0, 0);
    assert!(!component.commit(0, WINDOW - GRANULE, GRANULE, HOST_ONLY), "below the window");
    component.set_control(0, 0);
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
    assert!(!component.commit(1, WINDOW + 2 * GRANULE, GRANULE, HOST_ONLY), "a gap in the window is one in the device");
    component.set_control(1, 0);
    component.program(1, WINDOW + 2 * GRANULE, GRANULE, GRANULE);
    component.set_control(1, HOST_ONLY | COMMIT);
    let (first, second) = (GRANULE, 2 * GRANULE);
    let committed = component.registers.decoders();
    assert_eq!(committed[0], decoder(WINDOW..WINDOW + first, 0..first));
    assert_eq!(committed[1], decoder(WINDOW + second..WINDOW + second + GRANULE, second..second + GRANULE));
}

#[test]
fn bits_below_256_mib_do_not_exist() {
    let component = Component::new();
    component.program(0, u64::MAX, u64::MAX, u64::MAX);
    let at = component.decoder(0);
    for register in [0x00, 0x08, 0x14] {
        assert_eq!((component.read(at + register), component.read(at + register + 4)), (0xf000_0000, u32::MAX));
    }
}

#[test]
fn the_component_state_is_what_the_registers_read() {
    let component = Component::new();
    assert!(component.commit(0, WINDOW, GRANULE, HOST_ONLY));
    let state = component.registers.component_state();
    assert_eq!(state.len(), 0x10 + 4 * 0x20);
    assert_eq!(state[0x14..0x18], 0xff_u32.to_le_bytes(), "decoder 0, base high");
    assert_eq!(state[0x20..0x24], (HOST_ONLY | COMMIT | COMMITTED).to_le_bytes());
}

/// Writes that often meet the decoders' registers.
fn writes() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let anywhere = (0u64..0x10008, prop::collection::vec(any::<u8>(), 0..40));
    let decoders = (0x1200u64..0x1290, prop::collection::vec(any::<u8>(), 1..9));
    let commit = (0u64..4, any::<u8>()).prop_map(|(n, fields)| (0x1220 + 0x20 * n, vec![fields & 0x12, 0x12, 0, 0]));
    let size =
        (0u64..4, 0u8..4).prop_map(|(n, granules)| (0x1218 + 0x20 * n, vec![0, 0, 0, granules << 4, 0, 0, 0, 0]));
    let base = (0u64..4, any::<u8>()).prop_map(|(n, base)| (0x1214 + 0x20 * n, vec![base, 0, 0, 0]));
    prop::collection::vec(prop_oneof![anywhere, decoders, commit, size, base], 1..60)
}

proptest! {
    #[test]
    fn no_write_panics_or_breaks_what_decoders_promise(writes in writes()) {
        let component = Component::new();
        let constant = |component: &Component| {
            (0x1000..0x1010).chain([component.hdm]).step_by(4).map(|at| component.read(at)).collect::<Vec<_>>()
        };
        let (reset, before) = (component.registers.component_state(), constant(&component));
        for (offset, data) in writes {
            component.registers.write(offset, &data, None);
            let decoders = component.registers.decoders();
            for decoder in &decoders {
                prop_assert!(decoder.dpa.start < decoder.dpa.end && decoder.dpa.end <= CAPACITY);
                prop_assert_eq!(decoder.hpa.end - decoder.hpa.start, (decoder.dpa.end - decoder.dpa.start) * decoder.ways);
            }
            for pair in decoders.windows(2) {
                prop_assert!(pair[0].hpa.end <= pair[1].hpa.start && pair[0].dpa.end <= pair[1].dpa.start);
            }
            let committed = (0..4).filter(|n| component.control(*n) & COMMITTED != 0).count();
            prop_assert_eq!(committed, decoders.len());
        }
        prop_assert_eq!(before, constant(&component));
        component.registers.reset();
        prop_assert_eq!(reset, component.registers.component_state());
    }
}
