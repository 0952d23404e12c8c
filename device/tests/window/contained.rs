//! The program itself, in its sandbox, with its window: whatever it does for a guest it can still do, and it leaves nothing
//! behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

use crate::support::{Client, MIB, PAGE, mounts_below, named, noise_word, window_file};

/// The tests of this file that need `/dev/fuse`.
pub(crate) const TESTS: &[(&str, fn())] = named![
    a_contained_server_serves_evicts_recompresses_and_leaves_nothing_behind,
    a_contained_server_with_a_large_cache_stops_while_a_client_maps_it,
    a_contained_server_that_is_killed_leaves_nothing_behind,
    the_window_of_a_server_of_another_user_is_that_users,
];

/// The device as a user starts it; sockets and mount are in a directory of its own.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("mounts")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
            .args(["serve", "--socket", "s", "--control", "c", "--capacity", "256M", "--flush-interval", "20"])
            .args(more)
            .current_dir(directory.path())
            .env("TMPDIR", directory.path().join("mounts"))
            .env_remove("CXL_CRAM_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut server = Self { child, directory };
        BufReader::new(server.child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        if !ready.starts_with("ready: ") {
            panic!("{}", server.log());
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The window's file. Root's server has mounted it where no other process sees it.
    fn file(&self) -> PathBuf {
        let mounts = self.path("mounts");
        if !geteuid().is_root() {
            return window_file(&mounts);
        }
        let root = format!("/proc/{}/root", self.child.id());
        window_file(&Path::new(&root).join(mounts.strip_prefix("/").unwrap()))
    }

    /// A figure of `query-status`.
    fn figure(&self, name: &str) -> u64 {
        let mut socket = UnixStream::connect(self.path("c")).unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map(|line| line.unwrap());
        lines.next().unwrap();
        let mut answer = Value::Null;
        for command in ["qmp_capabilities", "query-status"] {
            writeln!(socket, r#"{{"execute":"{command}"}}"#).unwrap();
            // Events may come between.
            let returned = lines.find(|line| line.contains("\"return\"")).unwrap();
            answer = serde_json::from_str(&returned).unwrap();
        }
        answer.pointer(&format!("/return/{name}")).and_then(Value::as_u64).unwrap()
    }

    /// What it has logged, once it has ended.
    fn log(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    /// Ends in order, without a word, and nothing is left at that moment.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let log = self.log();
        assert!(self.child.wait().unwrap().success(), "{log}");
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "{log}");
        assert_eq!(mounts_below(self.directory.path()), Vec::<String>::new());
    }

    /// What is in its directory: sockets, and directories for mounts.
    fn left(&self) -> Vec<PathBuf> {
        let entries = |directory: &Path| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mounts = self.path("mounts");
        entries(self.directory.path()).filter(|path| *path != mounts).chain(entries(&mounts)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for what no process announces.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn a_contained_server_serves_evicts_recompresses_and_leaves_nothing_behind() {
    let server =
        Server::start(&["--physical", "64M", "--cache", "4M", "--codec", "adaptive", "--high-watermark", "90%"]);
    let mut client = Client::new(&server.file());
    client.noise(0, 16 * MIB / PAGE);
    client.ask(&format!("nibbles {} 256", 16 * MIB / PAGE));
    client.ask(&format!("noise {} {}", 20 * MIB / PAGE, 4 * MIB / PAGE));
    assert_eq!(client.load(MIB), noise_word(MIB));
    assert!(server.figure("resident/evicted") > 0 && server.figure("resident/written-back") > 0);
    // Media is short: cold blocks are compressed harder, by a thread and a library that came after the rights went.
    wait_until("recompressed blocks", || server.figure("recompressed-blocks") > 0);
    // A second QEMU beside the first is refused with a reason, and the next one served.
    for _ in 0..2 {
        let _first = UnixStream::connect(server.path("s")).unwrap();
        let mut second = UnixStream::connect(server.path("s")).unwrap();
        second.write_all(&[0; 16]).unwrap();
        assert_ne!(second.read(&mut [0; 16]).unwrap(), 0, "refused with a reply");
    }
    drop(client);
    let mut server = server;
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    let log = server.log();
    assert!(server.child.wait().unwrap().success(), "{log}");
    assert!(log.lines().all(|line| line.contains("one QEMU at a time") || line.contains("dirty pages")), "{log}");
    assert_eq!(server.left(), Vec::<PathBuf>::new());
}

fn a_contained_server_with_a_large_cache_stops_while_a_client_maps_it() {
    let server = Server::start(&["--cache", "256M"]);
    let mut client = Client::new(&server.file());
    client.noise(0, 64 * MIB / PAGE);
    assert!(server.figure("resident/bytes") >= 64 * MIB);
    server.stop();
}

fn a_contained_server_that_is_killed_leaves_nothing_behind() {
    let mut server = Server::start(&[]);
    let mut client = Client::new(&server.file());
    client.noise(0, 64);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // Another user than root needs the helper of FUSE for that.
    wait_until("the guardian", || !server.path("s").exists() && (!geteuid().is_root() || server.left().is_empty()));
}

fn the_window_of_a_server_of_another_user_is_that_users() {
    if !geteuid().is_root() {
        return;
    }
    let server = Server::start(&["--user", "65534:65534"]);
    let metadata = fs::metadata(server.file()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (65534, 65534, 0o600));
    let mut client = Client::new(&server.file());
    client.noise(0, 64);
    assert!(server.figure("used") >= 64 * PAGE);
    server.stop();
}
