//! Bytes of a vfio-user client, after a well-formed VERSION or, if the first byte is odd, without one.
//!
//! One server lives for the whole process. That it answers the VERSION of the next input is the invariant: whatever a
//! client sends, the next client is served.

#![no_main]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::LazyLock,
    thread,
};

use cxl_cram_device::vfio_user::{Server, Stop};
use cxl_cram_device_fuzz::{DEVICE, converse};
use libfuzzer_sys::fuzz_target;

/// Message 1, command VERSION, 23 bytes, no flags, no error; version 0.0, no capabilities.
const VERSION: &[u8] = b"\x01\0\x01\0\x17\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0{}\0";
const HEADER: usize = 16;
const SIZE: std::ops::Range<usize> = 4..8;
const ERROR: std::ops::Range<usize> = 12..16;

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let socket = folder.join("device.sock");
    let server = Server::bind(&socket).expect("the socket can be bound");
    thread::spawn(move || {
        let stop = Stop::new().expect("an eventfd");
        server.run(&*DEVICE.board, &DEVICE.interrupts, &stop).expect("the server goes on");
    });
    socket
});

fn negotiate(stream: &mut UnixStream) {
    stream.write_all(VERSION).expect("the server reads");
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).expect("the server answers");
    assert_eq!(header[ERROR], [0; 4], "VERSION was refused");
    let size = u32::from_le_bytes(header[SIZE].try_into().expect("four bytes"));
    let mut payload = vec![0; size as usize - HEADER];
    stream.read_exact(&mut payload).expect("the whole answer");
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let mut stream = UnixStream::connect(&*SOCKET).expect("the server listens");
    if first & 1 == 0 {
        negotiate(&mut stream);
    }
    converse(stream, rest).expect("the socket can be shared");
});
