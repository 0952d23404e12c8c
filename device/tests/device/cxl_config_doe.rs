//! Conversations over the DOE mailbox, as drivers/pci/doe.c and drivers/cxl/core/pci.c hold them.

use std::sync::{Arc, Mutex};

use cxl_cram_device::cxl::{Msix, Type3Config, cdat::Cdat, config_space::ConfigSpace, doe, vectors};

const CAPACITY: u64 = 1 << 30;
const DISCOVERY: u32 = 0x0000_0001;
const TABLE_ACCESS: u32 = 0x0002_1e98;

#[derive(Default)]
struct Raised(Mutex<Vec<u16>>);

impl Msix for Raised {
    fn raise(&self, vector: u16) -> bool {
        self.0.lock().expect("no holder panicked").push(vector);
        true
    }
}

struct Mailbox {
    config: ConfigSpace,
    at: usize,
    raised: Arc<Raised>,
}

impl Mailbox {
    fn new() -> Self {
        Self::of(&Type3Config::default())
    }

    fn of(config: &Type3Config) -> Self {
        let raised = Arc::new(Raised::default());
        let config = ConfigSpace::new(config, CAPACITY, raised.clone());
        let mut mailbox = Self { config, at: 0, raised };
        let mut at = 0x100;
        while mailbox.read(at) & 0xffff != 0x2e {
            at = (mailbox.read(at) >> 20) as usize;
            assert_ne!(at, 0, "the DOE capability exists");
        }
        mailbox.at = at;
        mailbox
    }

    /// A dword of the capability.
    fn read(&self, offset: usize) -> u32 {
        let mut data = [0; 4];
        self.config.read((self.at + offset) as u64, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: usize, value: u32) {
        self.write_bytes(offset, &value.to_le_bytes());
    }

    fn write_bytes(&self, offset: usize, data: &[u8]) {
        assert!(!self.config.write((self.at + offset) as u64, data));
    }

    fn status(&self) -> u32 {
        self.read(doe::STATUS)
    }

    fn send(&self, dwords: &[u32]) {
        dwords.iter().for_each(|dword| self.write(doe::WRITE_MAILBOX, *dword));
        self.write(doe::CONTROL, doe::GO);
    }

    /// Reads the response while there is one, header first.
    fn receive(&self) -> Vec<u32> {
        let mut dwords = vec![];
        while self.status() & doe::READY != 0 {
            dwords.push(self.read(doe::READ_MAILBOX));
            self.write(doe::READ_MAILBOX, 0);
        }
        dwords
    }

    fn ask(&self, protocol: u32, payload: u32) -> Vec<u32> {
        self.send(&[protocol, 3, payload]);
        self.receive()
    }

    fn is_idle(&self) -> bool {
        self.status() & (doe::READY | doe::ERROR) == 0
    }
}

#[test]
fn discovery_lists_itself_and_cxl_table_access() {
    let mailbox = Mailbox::new();
    assert_eq!(mailbox.ask(DISCOVERY, 0), [DISCOVERY, 3, 0x0100_0001]);
    assert_eq!(mailbox.ask(DISCOVERY, 1), [DISCOVERY, 3, 0x0002_1e98]);
    assert_eq!(mailbox.ask(DISCOVERY, 2), [DISCOVERY, 3, 0xffff], "an index past the last has no vendor");
}

/// The table, and the sizes of its entries.
fn read_table(mailbox: &Mailbox) -> (Vec<u8>, Vec<usize>) {
    let (mut table, mut handle, mut sizes) = (vec![], 0, vec![]);
    while handle != 0xffff {
        let response = mailbox.ask(TABLE_ACCESS, handle << 16);
        assert_eq!(response[0], TABLE_ACCESS);
        assert_eq!(response[1] as usize, response.len());
        assert_eq!(response[2] & 0xffff, 0, "read entry of a CDAT");
        handle = response[2] >> 16;
        let entry: Vec<u8> = response[3..].iter().flat_map(|dword| dword.to_le_bytes()).collect();
        sizes.push(entry.len());
        table.extend(entry);
        assert!(sizes.len() < 10_000, "the handles loop");
    }
    (table, sizes)
}

#[test]
fn the_cdat_is_read_entry_by_entry_and_checks_out() {
    let (table, sizes) = read_table(&Mailbox::new());
    assert_eq!(sizes, [16, 24, 24, 24, 24, 24, 24]);
    assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(u32::from_le_bytes(table[..4].try_into().unwrap()) as usize, table.len());
    assert_eq!(u64::from_le_bytes(table[32..40].try_into().unwrap()), CAPACITY, "the DSMAS covers the capacity");
}

#[test]
fn a_cdat_that_was_given_is_read_as_it_is_however_long() {
    // As many of the smallest structures as fit: DSIS, eight bytes each.
    let count = (Cdat::MAX - 16) / 8;
    let mut given = vec![0; 16];
    for _ in 0..count {
        given.extend([3, 0, 8, 0, 0, 0, 0, 0]);
    }
    let length = given.len() as u32;
    given[..4].copy_from_slice(&length.to_le_bytes());
    given[4] = 1;
    given[5] = given.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    let cdat = Some(Cdat::parse(&given).unwrap());
    let (table, sizes) = read_table(&Mailbox::of(&Type3Config { cdat, ..Type3Config::default() }));
    assert_eq!(table, given);
    assert_eq!(sizes.len(), 1 + count);
}

#[test]
fn an_object_whose_length_is_not_what_was_written_is_discarded() {
    let mailbox = Mailbox::new();
    let objects: [&[u32]; 7] = [
        &[],
        &[DISCOVERY],
        &[DISCOVERY, 3],
        &[DISCOVERY, 2],
        &[DISCOVERY, 4, 0],
        &[DISCOVERY, 0, 0],
        &[DISCOVERY, 5, 0, 0, 0],
    ];
    for object in objects {
        mailbox.send(object);
        assert!(mailbox.is_idle(), "{object:x?} is discarded");
        assert_eq!(mailbox.read(doe::READ_MAILBOX), 0);
    }
    assert_eq!(mailbox.ask(DISCOVERY, 0).len(), 3, "and the next request starts afresh");
}

#[test]
fn an_endless_object_is_counted_and_discarded() {
    let mailbox = Mailbox::new();
    for _ in 0..(1 << 18) {
        mailbox.write(doe::WRITE_MAILBOX, 0);
    }
    mailbox.send(&[]);
    assert!(mailbox.is_idle());
    assert_eq!(mailbox.ask(DISCOVERY, 0).len(), 3);
}

#[test]
fn unknown_protocols_requests_and_handles_are_discarded() {
    let mailbox = Mailbox::new();
    for (protocol, payload) in [
        (0x0001_0001, 0),
        (0x0001_1e98, 0),
        (0x0002_8086, 0),
        (TABLE_ACCESS, 0x0000_0001),
        (TABLE_ACCESS, 0x0000_0100),
        (TABLE_ACCESS, 7 << 16),
        (TABLE_ACCESS, 0xffff << 16),
    ] {
        mailbox.send(&[protocol, 3, payload]);
        assert!(mailbox.is_idle(), "{protocol:#x} {payload:#x} has no answer");
    }
}

#[test]
fn a_request_over_an_unread_response_is_an_error_until_aborted() {
    let mailbox = Mailbox::new();
    mailbox.send(&[DISCOVERY, 3, 0]);
    assert_ne!(mailbox.status() & doe::READY, 0);
    mailbox.send(&[DISCOVERY, 3, 1]);
    assert_eq!(mailbox.status() & (doe::READY | doe::ERROR), doe::ERROR);
    mailbox.send(&[DISCOVERY, 3, 1]);
    assert_eq!(mailbox.status() & (doe::READY | doe::ERROR), doe::ERROR, "nothing is taken before the abort");
    mailbox.write(doe::CONTROL, doe::ABORT);
    assert!(mailbox.is_idle());
    assert_eq!(mailbox.ask(DISCOVERY, 1), [DISCOVERY, 3, TABLE_ACCESS]);
}

#[test]
fn an_abort_forgets_half_a_request_and_half_a_response() {
    let mailbox = Mailbox::new();
    mailbox.write(doe::WRITE_MAILBOX, TABLE_ACCESS);
    mailbox.write(doe::CONTROL, doe::ABORT | doe::GO);
    assert!(mailbox.is_idle());
    mailbox.send(&[DISCOVERY, 3, 0]);
    mailbox.write(doe::READ_MAILBOX, 0);
    mailbox.write(doe::CONTROL, doe::ABORT);
    assert!(mailbox.is_idle());
    assert_eq!(mailbox.read(doe::READ_MAILBOX), 0);
    assert_eq!(mailbox.read(doe::CONTROL), 0, "Abort and GO read 0");
    assert_eq!(mailbox.ask(DISCOVERY, 0).len(), 3);
}

#[test]
fn a_reset_forgets_the_conversation() {
    let mailbox = Mailbox::new();
    mailbox.send(&[DISCOVERY, 3, 0]);
    mailbox.config.function_level_reset();
    assert_eq!((mailbox.status(), mailbox.read(doe::READ_MAILBOX)), (0, 0));
    mailbox.write(doe::WRITE_MAILBOX, TABLE_ACCESS);
    mailbox.config.reset();
    assert_eq!(mailbox.ask(DISCOVERY, 0).len(), 3);
}

#[test]
fn part_of_a_dword_moves_neither_mailbox() {
    let mailbox = Mailbox::new();
    mailbox.write_bytes(doe::WRITE_MAILBOX, &[1, 2]);
    mailbox.send(&[DISCOVERY, 3, 0]);
    mailbox.write_bytes(doe::READ_MAILBOX + 1, &[0, 0, 0]);
    assert_eq!(mailbox.read(doe::READ_MAILBOX), DISCOVERY);
    assert_eq!(mailbox.receive().len(), 3);
}

#[test]
fn the_interrupt_is_signalled_when_it_is_enabled() {
    let mailbox = Mailbox::new();
    mailbox.ask(DISCOVERY, 0);
    assert!(mailbox.raised.0.lock().unwrap().is_empty());
    assert_eq!(mailbox.status() & doe::INTERRUPT_STATUS, 0);

    for dword in [DISCOVERY, 3, 0] {
        mailbox.write(doe::WRITE_MAILBOX, dword);
    }
    mailbox.write(doe::CONTROL, doe::INTERRUPT_ENABLE | doe::GO);
    assert_eq!(*mailbox.raised.0.lock().unwrap(), [vectors::DOE]);
    assert_ne!(mailbox.status() & doe::INTERRUPT_STATUS, 0);
    mailbox.receive();
    assert_ne!(mailbox.status() & doe::INTERRUPT_STATUS, 0, "it stays until it is cleared");
    mailbox.write(doe::STATUS, doe::INTERRUPT_STATUS);
    assert_eq!(mailbox.status(), 0);
    assert_eq!(mailbox.read(doe::CONTROL), doe::INTERRUPT_ENABLE);

    mailbox.write(doe::CONTROL, doe::INTERRUPT_ENABLE | doe::GO);
    assert_eq!(mailbox.raised.0.lock().unwrap().len(), 1, "a discarded object signals nothing");
}
