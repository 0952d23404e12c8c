//! Mailbox commands with any opcode, length and payload, and writes anywhere else in the device registers.
//!
//! The input is a sequence of commands: two bytes of opcode, one of payload length, the payload. Opcode FFFFh is a plain
//! write instead: two bytes of offset in the device registers, one of length, the data.

#![no_main]

use std::{thread, time::Duration};

use cxl_cram_device::cxl::Type3;
use cxl_cram_device_fuzz::{Bytes, DEVICE};
use libfuzzer_sys::fuzz_target;

/// The device registers in BAR0.
const DEVICE_REGISTERS: u64 = 0x1_0000;
/// The mailbox, which the capability array of the device registers places here.
const MAILBOX: u64 = DEVICE_REGISTERS + 0x200;
const CONTROL: u64 = MAILBOX + 0x04;
const COMMAND: u64 = MAILBOX + 0x08;
const STATUS: u64 = MAILBOX + 0x10;
const PAYLOAD: u64 = MAILBOX + 0x20;
const DOORBELL: u32 = 1;
const BACKGROUND_OPERATION: u64 = 1;

const PLAIN_WRITE: u16 = 0xffff;
const IDENTIFY: u16 = 0x4000;

fn ring(function: &Type3, opcode: u16, payload: &[u8]) -> u64 {
    function.bar0_write(PAYLOAD, payload);
    let command = u64::from(opcode) | (payload.len() as u64) << 16;
    function.bar0_write(COMMAND, &command.to_le_bytes());
    function.bar0_write(CONTROL, &DOORBELL.to_le_bytes());
    let mut status = [0; 8];
    function.bar0_read(STATUS, &mut status);
    u64::from_le_bytes(status)
}

/// A background operation runs on a thread of its own. It must have ended before the next command, or one input would do
/// something else every time.
fn wait_for_background(function: &Type3) {
    let mut status = [0; 8];
    loop {
        function.bar0_read(STATUS, &mut status);
        if u64::from_le_bytes(status) & BACKGROUND_OPERATION == 0 {
            return;
        }
        thread::sleep(Duration::from_micros(50));
    }
}

fuzz_target!(|input: &[u8]| {
    DEVICE.power_cycle();
    let function = &DEVICE.function;
    let mut bytes = Bytes(input);
    while !bytes.is_empty() {
        match bytes.u16() {
            PLAIN_WRITE => {
                let offset = u64::from(bytes.u16());
                let length = usize::from(bytes.u8());
                function.bar0_write(DEVICE_REGISTERS + offset, bytes.slice(length));
            }
            opcode => {
                let length = usize::from(bytes.u8());
                ring(function, opcode, bytes.slice(length));
            }
        }
        wait_for_background(function);
    }

    function.reset();
    assert_eq!(ring(function, IDENTIFY, &[]) >> 32, 0, "the mailbox no longer answers Identify");
});
