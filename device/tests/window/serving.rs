//! The whole device with a FUSE window, as `serve` runs it: what its clients cost it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::named;

/// The tests of this file that need `/dev/fuse`.
pub(crate) const TESTS: &[(&str, fn())] = named![
    an_empty_device_of_8_tib_stays_small_after_its_first_clients,
    a_client_finds_nothing_of_the_one_before_it_however_soon_it_comes,
];

const VERSION: u16 = 1;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;

/// A serving device. Killed on drop.
struct Server {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts it and waits until it is ready.
    fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let mut child = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
            .arg("serve")
            .args(flags)
            .arg("--socket")
            .arg(&socket)
            .env("TMPDIR", directory.path())
            // The names of functions, which it would read for backtraces, are not the device's memory.
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_ne!(BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap(), 0);
        Self { child, socket, _directory: directory }
    }

    /// A client whose VERSION has been answered.
    fn client(&self) -> UnixStream {
        let mut client = UnixStream::connect(&self.socket).unwrap();
        // Major and minor version.
        assert_eq!(request(&mut client, VERSION, &[0; 4])[..4], [0; 4]);
        client
    }

    /// Bytes of memory it takes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message of the protocol; the payload of the reply, which must not be an error.
fn request(client: &mut UnixStream, command: u16, payload: &[u8]) -> Vec<u8> {
    // Header: id and command, bytes, flags, error.
    let mut message = u32::from(command).rotate_left(16).to_ne_bytes().to_vec();
    message.extend_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(payload);
    client.write_all(&message).unwrap();
    let mut header = [0; 16];
    client.read_exact(&mut header).unwrap();
    let [_, size, flags, _] = header.as_chunks::<4>().0 else { unreachable!() };
    assert_eq!(u32::from_ne_bytes(*flags), 1, "a reply without an error");
    let mut reply = vec![0; u32::from_ne_bytes(*size) as usize - 16];
    client.read_exact(&mut reply).unwrap();
    reply
}

/// The payload of a read or write of BAR2.
fn access(dpa: u64, count: u32, data: &[u8]) -> Vec<u8> {
    [&dpa.to_ne_bytes()[..], &2_u32.to_ne_bytes(), &count.to_ne_bytes(), data].concat()
}

fn a_client_finds_nothing_of_the_one_before_it_however_soon_it_comes() {
    const PART: usize = 1 << 16;
    let server = Server::start(&["--capacity", "256M", "--physical", "256M", "--cache", "64M"]);
    for round in 1..4 {
        let mut client = server.client();
        for part in 0..256 {
            let dpa = part * PART as u64;
            let found = request(&mut client, REGION_READ, &access(dpa, PART as u32, &[]));
            assert!(found[16..].iter().all(|byte| *byte == 0), "round {round}, DPA {dpa:#x}");
            request(&mut client, REGION_WRITE, &access(dpa, PART as u32, &[round; PART]));
        }
    }
}

fn an_empty_device_of_8_tib_stays_small_after_its_first_clients() {
    let server = Server::start(&["--capacity", "8T", "--physical", "64M"]);
    for _ in 0..3 {
        drop(server.client());
    }
    let _client = server.client();
    let memory = server.memory();
    assert!(memory < 64 << 20, "{} MiB", memory >> 20);
}
