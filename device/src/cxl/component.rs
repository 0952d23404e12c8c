//! The component register block (8.2.3): 64 KiB, with the CXL.cache/mem registers implemented at
//! 1000h.
//!
//! Their capability array (8.2.4) leads to the RAS, link and HDM decoder structures.

use parking_lot::Mutex;

use super::{
    hdm_decoder::{self, Decoder, HdmDecoders},
    ras::{self, Correctable, Header, Uncorrectable},
    registers::RegisterMap,
};

/// Where the CXL.cache/mem registers start in the block, and their bytes.
const CACHE_MEM: u64 = 0x1000;
const CACHE_MEM_SIZE: usize = 0x1000;

/// Structures, as offsets from the CXL.cache/mem registers.
const RAS: usize = 0x80;
const LINK: usize = 0x100;
const HDM_DECODER: usize = 0x200;

/// CXL link capability structure (8.2.4.19).
const LINK_ID: u32 = 0x4;
const LINK_VERSION: u32 = 2;
/// Link layer capability: link version 1 supported and received.
const LINK_CAPABILITY: u64 = 0x11;
/// Link control and status: initialisation state "done" in bits 4:3.
const LINK_STATUS_OFFSET: usize = 0x8;
const LINK_INIT_DONE: u64 = 3 << 3;

/// The component registers.
pub struct ComponentRegisters {
    state: Mutex<State>,
}

struct State {
    map: RegisterMap,
    decoders: HdmDecoders,
}

impl ComponentRegisters {
    /// The registers in their reset state, in front of `capacity` bytes of HDM.
    pub fn new(capacity: u64) -> Self {
        let map = RegisterMap::new(CACHE_MEM_SIZE);
        let map = capability_array(map);
        let map = ras::add(map, RAS);
        let map = map.ro64(LINK, LINK_CAPABILITY).ro64(LINK + LINK_STATUS_OFFSET, LINK_INIT_DONE);
        let map = hdm_decoder::add(map, HDM_DECODER);
        Self { state: Mutex::new(State { map, decoders: HdmDecoders::new(HDM_DECODER, capacity) }) }
    }

    /// Reads the block. Reserved bytes read 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((at, skip)) = cache_mem(offset, data.len()) {
            self.state.lock().map.read(at, &mut data[skip..]);
        }
    }

    /// Writes the block. Reserved bytes ignore writes. `window` is as [`HdmDecoders::written`] takes it.
    pub fn write(&self, offset: u64, data: &[u8], window: Option<u64>) {
        if let Some((at, skip)) = cache_mem(offset, data.len()) {
            let State { map, decoders } = &mut *self.state.lock();
            let touched = map.write(at, &data[skip..]);
            decoders.written(map, touched, window);
        }
    }

    /// Conventional reset: no decoder is committed or locked.
    pub fn reset(&self) {
        let State { map, decoders } = &mut *self.state.lock();
        map.reset();
        decoders.reset();
    }

    /// An uncorrectable protocol error, with its header.
    pub fn uncorrectable(&self, error: Uncorrectable, header: &Header) {
        ras::uncorrectable(&mut self.state.lock().map, RAS, error, header);
    }

    /// A correctable protocol error.
    pub fn correctable(&self, error: Correctable) {
        ras::correctable(&mut self.state.lock().map, RAS, error);
    }

    /// The committed HDM decoders, lowest first.
    pub fn decoders(&self) -> Vec<Decoder> {
        self.state.lock().decoders.committed().collect()
    }

    /// The HDM decoder capability structure as it reads now: the vendor's part of the component state dump log.
    pub fn component_state(&self) -> Vec<u8> {
        let mut bytes = vec![0; hdm_decoder::LENGTH];
        self.state.lock().map.read(HDM_DECODER, &mut bytes);
        bytes
    }
}

/// Where an access enters the CXL.cache/mem registers, and how many of its bytes lie before them.
fn cache_mem(offset: u64, length: usize) -> Option<(usize, usize)> {
    let skip = usize::try_from(CACHE_MEM.saturating_sub(offset)).ok()?;
    let at = usize::try_from(offset.saturating_sub(CACHE_MEM)).ok()?;
    (skip < length).then_some((at, skip))
}

/// The capability header (8.2.4.1) and one entry a structure: id 15:0, version 19:16, pointer 31:20.
fn capability_array(map: RegisterMap) -> RegisterMap {
    const HEADER_ID: u32 = 1;
    const HEADER_VERSION: u32 = 1 << 16;
    const CACHE_MEM_VERSION: u32 = 1 << 20;
    let entries = [
        (ras::ID, ras::VERSION, RAS),
        (LINK_ID, LINK_VERSION, LINK),
        (hdm_decoder::ID, hdm_decoder::VERSION, HDM_DECODER),
    ];
    let map = map.ro32(0, HEADER_ID | HEADER_VERSION | CACHE_MEM_VERSION | (entries.len() as u32) << 24);
    entries
        .into_iter()
        .enumerate()
        .fold(map, |map, (i, (id, version, pointer))| map.ro32(4 + 4 * i, id | version << 16 | (pointer as u32) << 20))
}
