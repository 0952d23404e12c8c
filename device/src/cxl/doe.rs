//! Data object exchange: the mailbox in configuration space (PCIe 6.0, 6.30 and 7.9.24).
//!
//! Two protocols: discovery, and CXL table access (8.1.11), which reads the [CDAT](super::cdat). A request is answered
//! within the write of GO, so Busy always reads 0.

use super::{
    cdat::Cdat,
    dvsec::CXL_VENDOR,
    registers::{RegisterMap, Touched},
    vectors,
};

/// PCIe extended capability id.
const DOE_CAPABILITY: u32 = 0x002e;
/// Bytes of the capability.
pub const LENGTH: usize = 0x18;

/// Capabilities register: interrupt support in bit 0, its message number in 11:1.
const CAPABILITIES: usize = 0x04;
/// Control register.
pub const CONTROL: usize = 0x08;
/// Status register.
pub const STATUS: usize = 0x0c;
/// Write data mailbox: each write appends a dword to the request.
pub const WRITE_MAILBOX: usize = 0x10;
/// Read data mailbox: holds the response's next dword; any write takes it away.
pub const READ_MAILBOX: usize = 0x14;

/// Control: forget everything.
pub const ABORT: u32 = 1 << 0;
/// Control: signal an interrupt when an object is ready or an error was met.
pub const INTERRUPT_ENABLE: u32 = 1 << 1;
/// Control: the request is complete.
pub const GO: u32 = 1 << 31;

/// Status: an interrupt was signalled; write 1 to clear.
pub const INTERRUPT_STATUS: u32 = 1 << 1;
/// Status: no further request is taken until an abort.
pub const ERROR: u32 = 1 << 2;
/// Status: the read mailbox holds a dword of the response.
pub const READY: u32 = 1 << 31;

/// Vendor and type of the discovery protocol.
const DISCOVERY: Protocol = Protocol { vendor: 0x0001, kind: 0x00 };
/// Vendor and type of CXL table access.
const TABLE_ACCESS: Protocol = Protocol { vendor: CXL_VENDOR, kind: 0x02 };
/// In the order discovery lists them.
const PROTOCOLS: [Protocol; 2] = [DISCOVERY, TABLE_ACCESS];

/// Dwords of the request of either protocol: two of header, one of payload.
const REQUEST_DWORDS: usize = 3;
/// A length field of 0 means this many dwords.
const MAX_OBJECT_DWORDS: usize = 1 << 18;

/// Vendor id that answers a discovery index past the last.
const NO_VENDOR: u32 = 0xffff;
/// Entry handle that marks the last entry.
const LAST_ENTRY: u32 = 0xffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    vendor: u16,
    kind: u8,
}

impl Protocol {
    fn header(self) -> u32 {
        u32::from(self.vendor) | u32::from(self.kind) << 16
    }
}

/// Adds the capability.
pub fn add(map: RegisterMap, at: usize) -> RegisterMap {
    map.ro32(at, DOE_CAPABILITY | 1 << 16)
        .ro32(at + CAPABILITIES, 1 | u32::from(vectors::DOE) << 1)
        .rw32(at + CONTROL, 0, ABORT | INTERRUPT_ENABLE | GO)
        .w1c32(at + STATUS, INTERRUPT_STATUS)
        .rw32(at + WRITE_MAILBOX, 0, u32::MAX)
        .ro32(at + READ_MAILBOX, 0)
}

/// The instance behind the registers at `at`. Control and status live in the registers themselves.
#[derive(Debug)]
pub struct Doe {
    at: usize,
    cdat: Cdat,
    /// The request's first dwords; more than a request may have are only counted.
    request: [u32; REQUEST_DWORDS],
    written: usize,
    /// Dwords not yet read, in order.
    response: std::vec::IntoIter<u32>,
}

impl Doe {
    /// An idle instance.
    pub fn new(at: usize, cdat: Cdat) -> Self {
        Self { at, cdat, request: [0; REQUEST_DWORDS], written: 0, response: Vec::new().into_iter() }
    }

    /// Forgets the request and the response, as an abort does. The registers are reset by their owner.
    pub fn reset(&mut self) {
        self.written = 0;
        self.response = Vec::new().into_iter();
    }

    /// Acts on a write to the registers. Returns whether [`vectors::DOE`] is to be signalled.
    pub fn written(&mut self, map: &mut RegisterMap, touched: Touched) -> bool {
        let mut event = false;
        if touched.hits(self.at + CONTROL, 4) {
            let control = map.get32(self.at + CONTROL);
            map.set32(self.at + CONTROL, control & INTERRUPT_ENABLE);
            if control & ABORT != 0 {
                self.reset();
                self.set_status(map, ERROR | READY, 0);
                map.set32(self.at + READ_MAILBOX, 0);
            } else if control & GO != 0 {
                event = self.go(map);
            }
        }
        // The mailboxes take whole dwords only; part of one has no meaning.
        if touched.covers(self.at + WRITE_MAILBOX, 4) {
            let dword = map.get32(self.at + WRITE_MAILBOX);
            if let Some(slot) = self.request.get_mut(self.written) {
                *slot = dword;
            }
            self.written = self.written.saturating_add(1);
        }
        map.set32(self.at + WRITE_MAILBOX, 0);
        if touched.covers(self.at + READ_MAILBOX, 4) {
            self.show_next(map);
        }

        let signal = event && map.get32(self.at + CONTROL) & INTERRUPT_ENABLE != 0;
        if signal {
            self.set_status(map, 0, INTERRUPT_STATUS);
        }
        signal
    }

    /// Takes the request. Returns whether that was an event worth an interrupt.
    fn go(&mut self, map: &mut RegisterMap) -> bool {
        let written = std::mem::take(&mut self.written);
        let status = map.get32(self.at + STATUS);
        if status & ERROR != 0 {
            return false;
        }
        if status & READY != 0 {
            // The response in the way is lost with the request: only an abort brings the two sides together again.
            self.reset();
            map.set32(self.at + READ_MAILBOX, 0);
            self.set_status(map, READY, ERROR);
            return true;
        }
        // Malformed and unsupported objects are discarded silently; the requester runs into its time limit.
        let Some(response) = self.answer(written) else { return false };
        self.response = response.into_iter();
        self.show_next(map);
        true
    }

    /// Puts the response's next dword into the read mailbox.
    fn show_next(&mut self, map: &mut RegisterMap) {
        let next = self.response.next();
        map.set32(self.at + READ_MAILBOX, next.unwrap_or(0));
        match next {
            Some(_) => self.set_status(map, 0, READY),
            None => self.set_status(map, READY, 0),
        }
    }

    fn set_status(&self, map: &mut RegisterMap, clear: u32, set: u32) {
        let status = map.get32(self.at + STATUS);
        map.set32(self.at + STATUS, status & !clear | set);
    }

    /// The response to a request of this many dwords; None discards it.
    fn answer(&self, written: usize) -> Option<Vec<u32>> {
        let [header, length, payload] = self.request;
        let length = match length as usize & (MAX_OBJECT_DWORDS - 1) {
            0 => MAX_OBJECT_DWORDS,
            length => length,
        };
        if length != written || written != REQUEST_DWORDS {
            return None;
        }
        let protocol = PROTOCOLS.into_iter().find(|protocol| protocol.header() == header & 0x00ff_ffff)?;
        let body = if protocol == DISCOVERY { discovery(payload) } else { self.table_access(payload)? };
        let mut response = vec![protocol.header(), (2 + body.len()) as u32];
        response.extend(body);
        Some(response)
    }

    /// CXL table access, read entry (8.1.11.1): request code 7:0, table type 15:8, entry handle 31:16.
    fn table_access(&self, request: u32) -> Option<Vec<u32>> {
        if request & 0xffff != 0 {
            return None;
        }
        let handle = (request >> 16) as u16;
        let entry = self.cdat.entry(handle)?;
        let next = self.cdat.next(handle).map_or(LAST_ENTRY, u32::from);
        let dwords = entry.chunks_exact(4).map(|dword| u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]));
        Some(std::iter::once(next << 16).chain(dwords).collect())
    }
}

/// DOE discovery: request index 7:0; response vendor 15:0, type 23:16, next index 31:24.
fn discovery(request: u32) -> Vec<u32> {
    let index = (request & 0xff) as usize;
    let Some(protocol) = PROTOCOLS.get(index) else { return vec![NO_VENDOR] };
    let next = if index + 1 < PROTOCOLS.len() { index as u32 + 1 } else { 0 };
    vec![protocol.header() | next << 24]
}
