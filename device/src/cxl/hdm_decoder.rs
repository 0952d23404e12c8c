//! CXL HDM decoder capability structure (8.2.4.20): which host addresses reach which device addresses.
//!
//! Software fills in a decoder and sets Commit; the device answers Committed or Error Not Committed. A committed
//! decoder's fields are read-only; a locked one stays as it is until a conventional reset.

use std::ops::Range;

use super::registers::{RegisterMap, Touched};
use crate::shape::CAPACITY_UNIT;

/// Capability id in the CXL.cache/mem capability array.
pub const ID: u32 = 0x5;
/// Version of the structure.
pub const VERSION: u32 = 3;
/// Decoders.
pub const COUNT: usize = 4;
/// Bytes of the structure.
pub const LENGTH: usize = FIRST_DECODER + COUNT * DECODER_SIZE;

/// Capability; the number of decoders is encoded in bits 3:0.
pub const CAPABILITY: usize = 0x00;
/// Global control, with [`ENABLE`].
pub const GLOBAL_CONTROL: usize = 0x04;
/// The first decoder's registers.
pub const FIRST_DECODER: usize = 0x10;
/// Bytes of one decoder's registers.
pub const DECODER_SIZE: usize = 0x20;

/// In a decoder's registers: the first host physical address, 64 bits.
pub const BASE: usize = 0x00;
/// In a decoder's registers: bytes of host physical addresses, 64 bits.
pub const SIZE: usize = 0x08;
/// In a decoder's registers: control.
pub const CONTROL: usize = 0x10;
/// In an endpoint decoder's registers: device addresses to skip, 64 bits.
const DPA_SKIP: usize = 0x14;
/// In the same place of a host bridge's decoder: the port numbers of its targets, eight bits each.
pub const TARGET_LIST: usize = 0x14;

/// Capability: four decoders (the encoding of 4 is 2), no targets, address bits 14:8 can interleave.
const DECODER_COUNT_4: u32 = 2;
const INTERLEAVE_11_8: u32 = 1 << 8;
const INTERLEAVE_14_12: u32 = 1 << 9;
const INTERLEAVE_3_6_12_WAYS: u32 = 1 << 11;
const INTERLEAVE_16_WAYS: u32 = 1 << 12;
/// Supported coherency models: host-only.
const HOST_ONLY_COHERENCY: u32 = 2 << 21;

/// Global control: HDM decoder enable.
pub const ENABLE: u32 = 1 << 1;

/// Bases, sizes and skips are multiples of this; the bits below read 0.
const GRANULE: u64 = CAPACITY_UNIT;

const INTERLEAVE_GRANULARITY: u32 = 0xf;
const INTERLEAVE_WAYS: u32 = 0xf << 4;
/// Control: the decoder stays as it is once committed, until a conventional reset.
pub const LOCK_ON_COMMIT: u32 = 1 << 8;
/// Control: commit the decoder.
pub const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR_NOT_COMMITTED: u32 = 1 << 11;
/// Control: the target range is host-only coherent.
pub const TARGET_HOST_ONLY: u32 = 1 << 12;
const CONTROL_WRITABLE: u32 = INTERLEAVE_GRANULARITY | INTERLEAVE_WAYS | LOCK_ON_COMMIT | COMMIT | TARGET_HOST_ONLY;

/// Adds the structure.
pub fn add(map: RegisterMap, at: usize) -> RegisterMap {
    let interleave = INTERLEAVE_11_8 | INTERLEAVE_14_12 | INTERLEAVE_3_6_12_WAYS | INTERLEAVE_16_WAYS;
    let map = map.ro32(at + CAPABILITY, DECODER_COUNT_4 | interleave | HOST_ONLY_COHERENCY).rw32(
        at + GLOBAL_CONTROL,
        0,
        ENABLE,
    );
    (0..COUNT).map(|n| decoder(at, n)).fold(map, |map, decoder| {
        map.rw64(decoder + BASE, 0, !(GRANULE - 1))
            .rw64(decoder + SIZE, 0, !(GRANULE - 1))
            .rw32(decoder + CONTROL, 0, CONTROL_WRITABLE)
            .rw64(decoder + DPA_SKIP, 0, !(GRANULE - 1))
    })
}

/// Where decoder `n` of the structure at `at` starts.
fn decoder(at: usize, n: usize) -> usize {
    at + FIRST_DECODER + n * DECODER_SIZE
}

/// A committed decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// Host physical addresses, in bytes: this device's share is one part in `ways` of them.
    pub hpa: Range<u64>,
    /// Device physical addresses they reach, in bytes.
    pub dpa: Range<u64>,
    /// Devices the host range is interleaved over.
    pub ways: u64,
    /// Contiguous bytes on one device.
    pub granularity: u64,
    /// Whether it stays committed until a conventional reset.
    pub locked: bool,
}

/// Why a decoder was not committed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refusal {
    #[error("decoders commit in ascending order: commit the one below first, and none above may be committed")]
    Order,
    #[error("interleave ways or granularity {0:#x} is a reserved encoding")]
    Interleave(u32),
    #[error("the target range type must be host-only coherent")]
    Coherency,
    #[error("size {0:#x} is not a non-zero multiple of 256 MiB for each interleave way")]
    Size(u64),
    #[error("the range starts below the end of the decoder before it, or wraps")]
    Base,
    #[error("skip and size reach past the device's capacity")]
    Capacity,
    #[error("the window is BAR2: device address {dpa:#x} is at {window:#x}, not at {base:#x} or interleaved")]
    Window { dpa: u64, window: u64, base: u64 },
}

/// The commit logic behind the registers at `at`.
#[derive(Debug)]
pub struct HdmDecoders {
    at: usize,
    capacity: u64,
    decoders: [State; COUNT],
}

/// One decoder. The ranges are held from the commit on: a decoder below may be un-committed first.
#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Open,
    /// Commit is set and was refused; a new attempt needs a new 0-to-1 transition.
    Refused,
    /// Committed, with the control register as it was then.
    Committed(Decoder, u32),
}

impl State {
    fn committed(&self) -> Option<&Decoder> {
        match self {
            Self::Committed(decoder, _) => Some(decoder),
            Self::Open | Self::Refused => None,
        }
    }
}

impl HdmDecoders {
    /// No decoder committed.
    pub fn new(at: usize, capacity: u64) -> Self {
        Self { at, capacity, decoders: Default::default() }
    }

    /// Nothing committed, nothing locked. The registers are reset by their owner.
    pub fn reset(&mut self) {
        self.decoders = Default::default();
    }

    /// The committed decoders, lowest first.
    pub fn committed(&self) -> impl Iterator<Item = Decoder> {
        self.decoders.iter().filter_map(State::committed).cloned()
    }

    /// Acts on a write to the registers. `window` is the host address at which the device's memory starts, where that is
    /// fixed: a decoder with another base is not committed, because the host would reach other memory than the decoder
    /// describes.
    pub fn written(&mut self, map: &mut RegisterMap, touched: Touched, window: Option<u64>) {
        for n in 0..COUNT {
            if touched.hits(decoder(self.at, n) + CONTROL, 4) {
                self.control_written(map, n, window);
            }
        }
    }

    fn control_written(&mut self, map: &mut RegisterMap, n: usize, window: Option<u64>) {
        let control = decoder(self.at, n) + CONTROL;
        let commit = map.get32(control) & COMMIT != 0;
        match (&self.decoders[n], commit) {
            (State::Open, true) => self.commit(map, n, window),
            (State::Refused | State::Committed(..), false) => self.uncommit(map, n),
            // Only Commit is writable while it is set, but the map cannot freeze the other bits without it.
            (State::Committed(_, committed), true) => map.set32(control, *committed),
            (State::Open, false) | (State::Refused, true) => {}
        }
    }

    fn commit(&mut self, map: &mut RegisterMap, n: usize, window: Option<u64>) {
        let at = decoder(self.at, n);
        let control = map.get32(at + CONTROL);
        let (state, outcome) = match self.check(map, n, window) {
            Ok(decoder) => {
                map.freeze(at, CONTROL);
                map.freeze(at + DPA_SKIP, 8);
                if decoder.locked {
                    map.freeze(at + CONTROL, 4);
                }
                (State::Committed(decoder, control | COMMITTED), COMMITTED)
            }
            Err(refusal) => {
                tracing::warn!(decoder = n, %refusal, "HDM decoder not committed");
                (State::Refused, ERROR_NOT_COMMITTED)
            }
        };
        map.set32(at + CONTROL, control | outcome);
        self.decoders[n] = state;
    }

    /// Any decoder may be un-committed: Linux tears regions down in any order and keeps the addresses above pinned by
    /// itself.
    fn uncommit(&mut self, map: &mut RegisterMap, n: usize) {
        let at = decoder(self.at, n);
        let control = match &self.decoders[n] {
            State::Committed(_, committed) => *committed,
            State::Open | State::Refused => map.get32(at + CONTROL),
        };
        map.set32(at + CONTROL, control & !(COMMIT | COMMITTED | ERROR_NOT_COMMITTED));
        map.thaw(at, DECODER_SIZE);
        self.decoders[n] = State::Open;
    }

    /// Whether decoder `n` may be committed as it is programmed, and to what (8.2.4.20.12).
    fn check(&self, map: &RegisterMap, n: usize, window: Option<u64>) -> Result<Decoder, Refusal> {
        let (below, above) = (&self.decoders[..n], &self.decoders[n + 1..]);
        if below.iter().any(|d| d.committed().is_none()) || above.iter().any(|d| d.committed().is_some()) {
            return Err(Refusal::Order);
        }
        let (hpa_free, dpa_free) =
            below.last().and_then(State::committed).map_or((0, 0), |decoder| (decoder.hpa.end, decoder.dpa.end));

        let at = decoder(self.at, n);
        let control = map.get32(at + CONTROL);
        let encoding = control & (INTERLEAVE_WAYS | INTERLEAVE_GRANULARITY);
        let ways = ways((encoding & INTERLEAVE_WAYS) >> 4).ok_or(Refusal::Interleave(encoding))?;
        let granularity = granularity(encoding & INTERLEAVE_GRANULARITY).ok_or(Refusal::Interleave(encoding))?;
        if control & TARGET_HOST_ONLY == 0 {
            return Err(Refusal::Coherency);
        }

        let size = map.get64(at + SIZE);
        if size == 0 || !size.is_multiple_of(GRANULE * ways) {
            return Err(Refusal::Size(size));
        }
        let base = map.get64(at + BASE);
        let end = base.checked_add(size).filter(|_| base >= hpa_free).ok_or(Refusal::Base)?;
        let start = dpa_free.checked_add(map.get64(at + DPA_SKIP)).ok_or(Refusal::Capacity)?;
        let stop = start.checked_add(size / ways).filter(|stop| *stop <= self.capacity).ok_or(Refusal::Capacity)?;

        if let Some(window) = window
            && (ways != 1 || base.checked_sub(window) != Some(start))
        {
            return Err(Refusal::Window { dpa: start, window: window.saturating_add(start), base });
        }

        let locked = control & LOCK_ON_COMMIT != 0;
        Ok(Decoder { hpa: base..end, dpa: start..stop, ways, granularity, locked })
    }
}

/// Interleave ways of an encoding (8.2.4.20.7); None for a reserved one.
fn ways(encoding: u32) -> Option<u64> {
    match encoding {
        0..=4 => Some(1 << encoding),
        8..=10 => Some(3 << (encoding - 8)),
        _ => None,
    }
}

/// Interleave granularity of an encoding, in bytes; None for a reserved one.
fn granularity(encoding: u32) -> Option<u64> {
    (encoding <= 6).then_some(256 << encoding)
}
