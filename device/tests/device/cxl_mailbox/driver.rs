//! A function, and a driver's way to it: capabilities found by walking the array, commands through the doorbell.

use std::{
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cxl_cram_device::{
    cxl::{Msix, PayloadSize, Type3, Type3Config},
    hdm::{
        Resident, Window,
        media::{Media, MediaConfig, Threshold, Watermarks},
    },
    store::{Block, Codec},
};
use parking_lot::{Condvar, Mutex};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PAGE: u64 = 4096;
pub(crate) const LINE: u64 = 64;
pub(crate) const CAPACITY: u64 = 512 * MIB;

/// Return codes (CXL 3.1, table 8-34).
pub(crate) const SUCCESS: u16 = 0x00;
pub(crate) const BACKGROUND_STARTED: u16 = 0x01;
pub(crate) const INVALID_INPUT: u16 = 0x02;
pub(crate) const UNSUPPORTED: u16 = 0x03;
pub(crate) const BUSY: u16 = 0x06;
pub(crate) const MEDIA_DISABLED: u16 = 0x07;
pub(crate) const INVALID_HANDLE: u16 = 0x0e;
pub(crate) const INVALID_PHYSICAL_ADDRESS: u16 = 0x0f;
pub(crate) const INJECT_POISON_LIMIT_REACHED: u16 = 0x10;
pub(crate) const ABORTED: u16 = 0x12;
pub(crate) const INVALID_PAYLOAD_LENGTH: u16 = 0x16;
pub(crate) const INVALID_LOG: u16 = 0x17;
pub(crate) const ABORT_NOT_SUPPORTED: u16 = 0x20;

/// The device register block in BAR0.
pub(crate) const DEVICE_REGISTERS: u64 = 0x10000;

/// Capability ids.
pub(crate) const DEVICE_STATUS: u16 = 0x0001;
pub(crate) const PRIMARY_MAILBOX: u16 = 0x0002;
pub(crate) const MEMORY_DEVICE_STATUS: u16 = 0x4000;
pub(crate) const OCCUPANCY: u16 = 0x8000;

/// Mailbox registers.
pub(crate) const CONTROL: u64 = 0x04;
pub(crate) const COMMAND: u64 = 0x08;
pub(crate) const STATUS: u64 = 0x10;
pub(crate) const BACKGROUND_STATUS: u64 = 0x18;
pub(crate) const PAYLOAD: u64 = 0x20;
pub(crate) const DOORBELL: u32 = 1 << 0;
pub(crate) const BACKGROUND_INTERRUPT: u32 = 1 << 2;

/// Records the vectors that were raised, unless they are not armed.
#[derive(Default)]
pub(crate) struct Bell {
    raised: Mutex<Vec<u16>>,
    deaf: AtomicBool,
}

impl Msix for Bell {
    fn raise(&self, vector: u16) -> bool {
        let heard = !self.deaf.load(Ordering::Acquire);
        if heard {
            self.raised.lock().push(vector);
        }
        heard
    }
}

impl Bell {
    pub(crate) fn listen(&self, listening: bool) {
        self.deaf.store(!listening, Ordering::Release);
    }

    /// The vectors raised since the last call.
    pub(crate) fn take(&self) -> Vec<u16> {
        std::mem::take(&mut *self.raised.lock())
    }

    pub(crate) fn count(&self, vector: u16) -> usize {
        self.raised.lock().iter().filter(|&&raised| raised == vector).count()
    }
}

/// A window that blocks its invalidation while it is shut: so a background operation stands still where a test
/// wants to look at it.
#[derive(Default)]
pub(crate) struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn shut(&self) {
        *self.shut.lock() = true;
    }

    pub(crate) fn open(&self) {
        *self.shut.lock() = false;
        self.opened.notify_all();
    }
}

impl Window for Gate {
    fn mmap_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn read(&self, _dpa: u64, _data: &mut [u8]) {}
    fn write(&self, _dpa: u64, _data: &[u8]) {}
    fn flush(&self) {}
    fn invalidate(&self, _dpa: Range<u64>) {
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
    }
    fn resident(&self) -> Resident {
        Resident::default()
    }
}

/// Opens the gate also when a test fails, for the function waits for its worker when it goes.
pub(crate) struct Shut<'a>(&'a Gate);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// No vector was raised.
pub(crate) const SILENCE: [u16; 0] = [];

pub(crate) struct Device {
    pub(crate) type3: Arc<Type3>,
    pub(crate) media: Arc<Media>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) gate: Arc<Gate>,
    /// Offset of the device registers in BAR0.
    pub(crate) registers: u64,
}

/// Where the register locator (CXL 3.1, 8.1.9) says that the device registers are in BAR0: its DVSEC has id 8, the block id 3.
fn device_registers(function: &Type3) -> u64 {
    let read = |at: u64| {
        let mut word = [0; 4];
        function.config_read(at, &mut word);
        u32::from_le_bytes(word)
    };
    let mut at = 0x100;
    while read(at) as u16 != 0x23 || read(at + 8) as u16 != 8 {
        at = u64::from(read(at) >> 20);
        assert_ne!(at, 0, "there is a register locator");
    }
    let length = u64::from(read(at + 4) >> 20);
    let low = (0xc..length).step_by(8).map(|entry| read(at + entry)).find(|low| low >> 8 & 0xff == 3).unwrap();
    assert_eq!(low & 7, 0, "in BAR0");
    u64::from(low & 0xffff_0000)
}

impl Device {
    /// 512 MiB promised, as much media as that, watermarks at 10 and 20 per cent.
    pub(crate) fn new() -> Self {
        Self::with_physical(CAPACITY)
    }

    pub(crate) fn with_physical(physical: u64) -> Self {
        Self::with(CAPACITY, physical)
    }

    /// With payload registers of this size.
    pub(crate) fn with_payload(bytes: u64) -> Self {
        Self::of(CAPACITY, CAPACITY, PayloadSize::new(bytes).unwrap())
    }

    pub(crate) fn with(capacity: u64, physical: u64) -> Self {
        Self::of(capacity, physical, PayloadSize::default())
    }

    fn of(capacity: u64, physical: u64, mailbox_payload: PayloadSize) -> Self {
        let watermarks = Watermarks { low: Threshold::Percent(10.0), high: Threshold::Percent(20.0) };
        let media = Media::new(&MediaConfig { capacity, physical, codec: Codec::Lz4, watermarks }).unwrap();
        let (bell, gate) = (Arc::new(Bell::default()), Arc::new(Gate::default()));
        media.set_window(&gate);
        let config = Type3Config { serial: 1, mailbox_payload, ..Type3Config::default() };
        let type3 = Type3::new(&config, Arc::clone(&media), Arc::clone(&bell) as Arc<dyn Msix>);
        let registers = device_registers(&type3);
        Self { type3, media, bell, gate, registers }
    }

    /// Shuts the gate for as long as the guard lives.
    pub(crate) fn hold_background(&self) -> Shut<'_> {
        self.gate.shut();
        Shut(&self.gate)
    }

    pub(crate) fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0xee; N];
        self.type3.bar0_read(offset, &mut data);
        data
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    pub(crate) fn read64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(offset))
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.type3.bar0_write(offset, &value.to_le_bytes());
    }

    pub(crate) fn write64(&self, offset: u64, value: u64) {
        self.type3.bar0_write(offset, &value.to_le_bytes());
    }

    /// Every capability of the array: id, version, BAR0 offset, length.
    pub(crate) fn capabilities(&self) -> Vec<(u16, u8, u64, u64)> {
        let header = self.read64(self.registers);
        assert_eq!(header as u16, 0, "the array's own id");
        let count = header >> 32 & 0xffff;
        let entry = |n| self.registers + 0x10 * (n + 1);
        (0..count)
            .map(|n| {
                let id = self.read32(entry(n));
                let offset = u64::from(self.read32(entry(n) + 4));
                (id as u16, (id >> 16) as u8, self.registers + offset, u64::from(self.read32(entry(n) + 8)))
            })
            .collect()
    }

    /// Where a capability's registers are in BAR0.
    pub(crate) fn capability(&self, id: u16) -> u64 {
        self.capabilities().into_iter().find(|entry| entry.0 == id).expect("the capability exists").2
    }

    /// Sends a command as Linux does: payload, command register, doorbell, status, payload.
    pub(crate) fn run(&self, opcode: u16, payload: &[u8]) -> (u16, Vec<u8>) {
        self.ring(opcode, payload);
        self.outcome(opcode)
    }

    /// Whether the doorbell is set.
    pub(crate) fn doorbell(&self) -> bool {
        self.read32(self.capability(PRIMARY_MAILBOX) + CONTROL) & DOORBELL != 0
    }

    /// Sends a command, and does not look whether it is done.
    pub(crate) fn ring(&self, opcode: u16, payload: &[u8]) {
        let mailbox = self.capability(PRIMARY_MAILBOX);
        assert!(!self.doorbell());
        if !payload.is_empty() {
            self.type3.bar0_write(mailbox + PAYLOAD, payload);
        }
        self.write64(mailbox + COMMAND, u64::from(opcode) | (payload.len() as u64) << 16);
        self.write32(mailbox + CONTROL, DOORBELL);
    }

    /// How a command ended: its return code and output.
    pub(crate) fn outcome(&self, opcode: u16) -> (u16, Vec<u8>) {
        let mailbox = self.capability(PRIMARY_MAILBOX);
        assert!(!self.doorbell());
        let command = self.read64(mailbox + COMMAND);
        assert_eq!(command as u16, opcode, "the opcode stays");
        let mut output = vec![0; (command >> 16) as usize & 0x1f_ffff];
        self.type3.bar0_read(mailbox + PAYLOAD, &mut output);
        ((self.read64(mailbox + STATUS) >> 32) as u16, output)
    }

    /// The return code alone.
    pub(crate) fn code(&self, opcode: u16, payload: &[u8]) -> u16 {
        self.run(opcode, payload).0
    }

    /// The output of a command that succeeds.
    pub(crate) fn output(&self, opcode: u16, payload: &[u8]) -> Vec<u8> {
        let (code, output) = self.run(opcode, payload);
        assert_eq!(code, SUCCESS, "opcode {opcode:#06x}");
        output
    }

    pub(crate) fn enable_background_interrupt(&self, enabled: bool) {
        self.write32(self.capability(PRIMARY_MAILBOX) + CONTROL, if enabled { BACKGROUND_INTERRUPT } else { 0 });
    }

    /// Background Command Status: opcode, percentage, return code.
    pub(crate) fn background(&self) -> (u16, u8, u16) {
        let status = self.read64(self.capability(PRIMARY_MAILBOX) + BACKGROUND_STATUS);
        (status as u16, (status >> 16) as u8 & 0x7f, (status >> 32) as u16)
    }

    /// Whether the mailbox status says that a background operation is under way.
    pub(crate) fn background_runs(&self) -> bool {
        self.read64(self.capability(PRIMARY_MAILBOX) + STATUS) & 1 != 0
    }

    /// Polls the status register to 100 per cent, and gives the return code.
    pub(crate) fn wait_background(&self, opcode: u16) -> u16 {
        wait_until(|| self.background().1 == 100);
        let (ended, _, code) = self.background();
        assert_eq!(ended, opcode);
        assert!(!self.background_runs());
        code
    }

    pub(crate) fn load(&self, dpa: u64) -> Block {
        let mut block = [0; PAGE as usize];
        self.media.load(dpa / PAGE, &mut block);
        block
    }

    pub(crate) fn used(&self) -> u64 {
        self.media.occupancy().usage.used
    }

    /// Stores blocks that do not compress: each takes a page of media.
    pub(crate) fn fill(&self, blocks: Range<u64>) {
        blocks.for_each(|block| self.media.store(block, &noise(block)));
    }
}

/// Polls, yielding, until it is so; a device that never gets there fails the test.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "the device never got there");
        std::thread::yield_now();
    }
}

/// A block that does not compress.
pub(crate) fn noise(seed: u64) -> Block {
    let mut block = [0; PAGE as usize];
    let mut x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for bytes in block.chunks_exact_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.copy_from_slice(&x.to_le_bytes());
    }
    block
}

/// Fields one after the other, little endian.
pub(crate) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
