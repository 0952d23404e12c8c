//! `serve` as a user runs it: what it refuses, with which sentence, and what it logs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, symlink},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use cxl_cram_device::serve::qemu::MESSAGE_TIMEOUT_MS;
use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Refused with this on standard error, one line, and nothing listens.
#[track_caller]
fn assert_refused(directory: &Path, flags: &[&str], code: i32, sentence: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
        .arg("serve")
        .args(flags)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
    assert!(stderr.contains(sentence), "{flags:?}: {stderr}");
    // clap adds where help is.
    assert!(code == 2 || stderr.lines().count() == 1, "{flags:?}: {stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn sizes_that_no_device_has_are_refused_with_those_that_one_has() {
    let directory = tempfile::tempdir().unwrap();
    for (flags, sentence) in [
        (["--capacity", "0"], "--capacity must be 256 MiB to 8 TiB, in steps of 256 MiB; 0 B is not, give 256M"),
        (["--capacity", "1GB"], "give 768M or 1G"),
        (["--capacity", "9T"], "give 8T"),
        (["--physical", "0"], "--physical must be 4 KiB to the capacity (1 GiB)"),
        (["--physical", "1.3G"], "1.3 GiB (1395864371 bytes) is not, give 1G"),
        (["--low-watermark", "20%"], "the low watermark (102.4 MiB) must be below the high watermark (102.4 MiB)"),
        (["--high-watermark", "512M"], "both below the physical size (512 MiB)"),
        (["--recompress-cpu", "10"], "needs --codec adaptive"),
        (["--latency", "0"], "--latency must be 1 to 65534 ns; 0 is not"),
        (["--latency", "250,65535"], "65535 is not"),
        (["--bandwidth", "65535"], "or a multiple of 1000 up to 65534000; 65535 is not"),
        (["--bandwidth", "16000,65535000"], "65535000 is not"),
    ] {
        assert_refused(directory.path(), &[&["--socket", "s"], &flags[..]].concat(), 1, sentence);
    }
    for (flags, sentence) in [
        (["--low-watermark", "10"], "a watermark of 10 bytes is less than a block of 4096"),
        (["--high-watermark", "20"], "10%"),
        (["--capacity", "1Q"], "96M"),
        (["--latency", "250,"], "'' is not such a number"),
        (["--latency", "65536"], "'65536' is not such a number"),
    ] {
        assert_refused(directory.path(), &[&["--socket", "s"], &flags[..]].concat(), 2, sentence);
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_file_that_is_no_cdat_is_refused_with_what_is_wrong_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("short"), "CDAT").unwrap();
    std::fs::write(path("zeros"), [0; 16]).unwrap();
    std::fs::write(path("long"), vec![0; 70_000]).unwrap();
    std::fs::write(path("sum"), [16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
    for (file, sentence) in [
        ("missing", "cannot read --cdat missing: No such file"),
        (".", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
        ("short", "--cdat short is no CDAT: 4 bytes are too few for a CDAT, whose header has 16"),
        ("zeros", "the header says 0 bytes (0 to 3, little-endian), and there are 16"),
        ("long", "a CDAT of more than 64 KiB is not taken"),
        ("sum", "the checksum (byte 5) is 0x00 and should be 0xef"),
    ] {
        assert_refused(directory.path(), &["--socket", "s", "--cdat", file], 1, sentence);
    }
    assert_refused(directory.path(), &["--socket", "s", "--cdat", "sum", "--latency", "1"], 2, "cannot be used with");
}

#[test]
fn one_path_for_both_sockets_is_refused_however_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("sub")).unwrap();
    symlink(directory.path(), path("link")).unwrap();
    drop(UnixListener::bind(path("stale")).unwrap());
    let _listener = UnixListener::bind(path("taken")).unwrap();
    let absolute = path("s").to_str().unwrap().to_owned();
    for (socket, control) in [
        ("s", "s"),
        ("s", "./s"),
        ("s", &absolute),
        ("sub/../s", "s"),
        ("link/s", "s"),
        ("missing/s", "missing/s"),
        ("stale", "stale"),
        ("taken", "taken"),
    ] {
        let flags = ["--socket", socket, "--control", control];
        assert_refused(directory.path(), &flags, 1, "--socket and --control name the same path");
    }
    assert!(path("stale").exists() && path("taken").exists(), "what was there is left alone");
}

#[test]
fn a_control_socket_that_is_taken_leaves_no_device_socket_behind() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join("taken")).unwrap();
    let flags = ["--socket", "s", "--control", "taken"];
    assert_refused(directory.path(), &flags, 1, "another server listens on taken");
    assert!(!directory.path().join("s").exists());
}

#[test]
fn a_second_client_is_named_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut server = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
        .args(["serve", "--window", "trap", "--capacity", "256M", "--socket"])
        .arg(&socket)
        .env_remove("CXL_CRAM_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let _first = UnixStream::connect(&socket).unwrap();
    let mut second = UnixStream::connect(&socket).unwrap();
    second.write_all(&[0; 16]).unwrap();
    assert_ne!(second.read(&mut [0; 16]).unwrap(), 0, "refused with a reply");
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(server.wait().unwrap().success(), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(&format!("pid={}", std::process::id())) && log.contains("one QEMU at a time"), "{log}");
}

#[test]
fn the_arguments_for_qemu_keep_a_device_that_stands_still_attached() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
        .args(["serve", "--window", "trap", "--capacity", "256M", "--socket"])
        .arg(directory.path().join("s"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    let option = format!("\"x-msg-timeout\":{MESSAGE_TIMEOUT_MS}");
    assert!(ready.contains(&option), "{ready}");
    let page = include_str!("../../../docs/attach.md");
    let attached = page.lines().filter(|line| line.contains("{\"driver\":\"vfio-user-pci\""));
    assert_eq!(attached.map(|line| line.contains(&option)).collect::<Vec<_>>(), [true], "in docs/attach.md");
    // QEMU takes a uint32 and hands it on as an int.
    assert!(i32::try_from(MESSAGE_TIMEOUT_MS).is_ok());
}

#[test]
fn every_thread_of_a_serving_device_has_a_name_and_no_rights() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut server = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"))
        .args(["serve", "--window", "trap", "--capacity", "256M", "--codec", "adaptive", "--socket"])
        .arg(path("s"))
        .arg("--control")
        .arg(path("c"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let _client = UnixStream::connect(path("s")).unwrap();
    // The control thread has its name once it serves; `vfio-user-door` comes with the client.
    BufReader::new(UnixStream::connect(path("c")).unwrap()).read_line(&mut String::new()).unwrap();
    let tasks = format!("/proc/{}/task", server.id());
    let names = || -> Vec<String> {
        let name =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
        let mut names: Vec<_> = std::fs::read_dir(&tasks).unwrap().map(|task| name(task).unwrap()).collect();
        names.sort();
        names
    };
    // A thread is named by itself, a moment after it began.
    let expected = ["control\n", "cxl-cram-device\n", "recompress\n", "vfio-user-door\n"];
    let end = Instant::now() + Duration::from_secs(60);
    while names() != expected && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(names(), expected);
    // And no rights.
    let status =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("status"));
    for status in std::fs::read_dir(&tasks).unwrap().map(|task| status(task).unwrap()) {
        for (right, without) in [("CapPrm", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
            assert_eq!(line(&status, right), without, "{right} of {status}");
        }
    }
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
}

/// What a line of `/proc/PID/status` says.
#[track_caller]
fn line<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

/// A server with a trapped window and both sockets in this directory, which is ready. More may be set before it starts.
fn trapped(directory: &Path, more: &[&str], set: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-device"));
    command.args(["serve", "--window", "trap", "--capacity", "256M", "--socket", "s", "--control", "c"]).args(more);
    command.current_dir(directory).env_remove("CXL_CRAM_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    set(&mut command);
    let mut server = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready: "), "{}", log(server));
    server
}

/// What a server has written to standard error by its end.
fn log(mut server: Child) -> String {
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    server.wait().unwrap();
    log
}

/// Ends a server in order.
fn stopped(server: Child) -> String {
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    log(server)
}

#[test]
fn a_server_that_stops_takes_its_sockets_along() {
    let directory = tempfile::tempdir().unwrap();
    for sandbox in ["on", "off"] {
        let server = trapped(directory.path(), &["--sandbox", sandbox], |_| {});
        assert_eq!(directory.path().read_dir().unwrap().count(), 2);
        assert_eq!(stopped(server), "");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "--sandbox {sandbox}");
    }
}

#[test]
fn the_sockets_of_a_server_that_is_killed_are_removed_unless_another_has_replaced_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = trapped(directory.path(), &[], |_| {});
    std::fs::remove_file(directory.path().join("c")).unwrap();
    let _other = UnixListener::bind(directory.path().join("c")).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while directory.path().join("s").exists() {
        assert!(Instant::now() < end, "the guardian does not remove the socket");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(directory.path().join("c").exists(), "of another process");
}

/// Has a system call fail in the programs that this command starts, as on a kernel without it.
fn without(command: &mut Command, call: libc::c_long, error: i32) {
    let rules = [(call, Vec::new())].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let fails = SeccompAction::Errno(error as u32);
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, fails, arch).unwrap().try_into().unwrap();
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::Other.into()));
    }
}

#[test]
fn a_kernel_that_cannot_confine_gets_one_warning_and_a_device() {
    for (call, error, sentence) in [
        (libc::SYS_landlock_create_ruleset, libc::ENOSYS, "this kernel has no Landlock"),
        (libc::SYS_seccomp, libc::EINVAL, "this kernel has no seccomp filters"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let server = trapped(directory.path(), &[], |command| without(command, call, error));
        let log = stopped(server);
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(sentence), "{log}");
    }
}

#[test]
fn a_user_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (user, sentence) in [
        ("no-such-user", "there is no user 'no-such-user'; give a name of the password database, or UID:GID"),
        ("3999999999", "user id 3999999999 is not in the password database; give its group as well, as 3999999999:GID"),
        ("0:wheel", "'wheel' is not a group id"),
    ] {
        assert_refused(directory.path(), &["--socket", "s", "--user", user], 2, sentence);
    }
    if !rustix::process::geteuid().is_root() {
        let flags = ["--socket", "s", "--window", "trap", "--user", "3999999999:1"];
        assert_refused(directory.path(), &flags, 1, "--user needs root");
    }
}

#[test]
fn root_serves_as_the_user_it_is_given_who_owns_the_sockets() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for sandbox in ["on", "off"] {
        let directory = tempfile::tempdir().unwrap();
        let server = trapped(directory.path(), &["--user", "65534:65533", "--sandbox", sandbox], |_| {});
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        for (name, expected) in [
            ("Uid", "65534\t65534\t65534\t65534"),
            ("Gid", "65533\t65533\t65533\t65533"),
            ("Groups", ""),
            ("CapPrm", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
        ] {
            assert_eq!(line(&status, name), expected, "{name}");
        }
        for socket in ["s", "c"] {
            let metadata = std::fs::metadata(directory.path().join(socket)).unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777), (65534, 0o600));
        }
        assert_eq!(stopped(server), "");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "root's guardian removes them");
    }
}
