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
pub(crate) const TESTS: &[(&str, fn())] = named![an_empty_device_of_8_tib_stays_small_after_its_first_clients];

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
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_ne!(BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap(), 0);
        Self { child, socket, _directory: directory }
    }

    /// A client whose VERSION has been answered.
    fn client(&self) -> UnixStream {
        let mut client = UnixStream::connect(&self.socket).unwrap();
        // Header: id, command 1, bytes, flags, error. Payload: major and minor version.
        let mut version = Vec::new();
        for word in [1 << 16, 20, 0, 0, 0_u32] {
            version.extend_from_slice(&word.to_ne_bytes());
        }
        client.write_all(&version).unwrap();
        let mut reply = [0; 16];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply[8..12], 1_u32.to_ne_bytes(), "a reply without an error");
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

fn an_empty_device_of_8_tib_stays_small_after_its_first_clients() {
    let server = Server::start(&["--capacity", "8T", "--physical", "64M"]);
    for _ in 0..3 {
        drop(server.client());
    }
    let _client = server.client();
    let memory = server.memory();
    assert!(memory < 64 << 20, "{} MiB", memory >> 20);
}
