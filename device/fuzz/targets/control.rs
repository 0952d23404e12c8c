//! Bytes of a control client: framing, JSON, and the arguments of every command but `quit`.
//!
//! One server lives for the whole process. It greets every input's connection, or the target fails.

#![no_main]

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, LazyLock},
    thread,
};

use cxl_cram_device::{
    control::{Arguments, CommandError, Commands, DeviceCommands, Events, Server},
    vfio_user::Stop,
};
use cxl_cram_device_fuzz::{CODEC, DEVICE, converse};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The device's commands, without the one that would end the server.
struct WithoutQuit(DeviceCommands);

impl Commands for WithoutQuit {
    fn execute(&self, name: &str, arguments: Arguments) -> Result<Value, CommandError> {
        if name == "quit" {
            return Err(CommandError::not_found("\"quit\" would end the fuzzer"));
        }
        self.0.execute(name, arguments)
    }
}

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let socket = folder.join("control.sock");
    let server = Server::bind(&socket).expect("the socket can be bound");
    let stop = Stop::new().expect("an eventfd");
    let commands = WithoutQuit(DeviceCommands {
        media: Arc::clone(&DEVICE.media),
        injector: Arc::clone(&DEVICE.function) as _,
        interrupts: Arc::clone(&DEVICE.interrupts),
        stop: stop.clone(),
        codec: CODEC,
        window: "trap",
    });
    let events = Events::new().expect("an eventfd");
    let listener = events.clone();
    DEVICE.media.add_listener(move |event| listener.media(event));
    thread::spawn(move || server.run(&commands, &events, &stop).expect("the server goes on"));
    socket
});

fuzz_target!(|input: &[u8]| {
    let stream = UnixStream::connect(&*SOCKET).expect("the server listens");
    let mut greeting = String::new();
    BufReader::new(&stream).read_line(&mut greeting).expect("the server greets");
    assert!(greeting.starts_with("{\"QMP\""), "no greeting but {greeting:?}");
    converse(stream, input).expect("the socket can be shared");
});
