//! `boot -c`: one command in a guest, as `git bisect run` uses it. Skipped where no guest can run.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use cxl_cram_lab::rig::obstacle;

/// Boots and runs a line, with a separate folder for temporary files, which must be empty afterwards.
fn boot(arguments: &[&str]) -> Option<Output> {
    if let Some(obstacle) = obstacle() {
        println!("skipping: {obstacle}");
        return None;
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    let output = command.arg("boot").args(arguments).env("TMPDIR", temporary.path()).output().unwrap();
    assert_eq!(left_in(temporary.path()), Vec::<String>::new(), "left behind");
    Some(output)
}

fn left_in(folder: &Path) -> Vec<String> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn boot_passes_on_the_commands_output_and_exit_code() {
    let line = "cxl list -M | grep -o mem0; echo trouble >&2; exit 7";
    let Some(output) = boot(&["--capacity", "256M", "--physical", "64M", "-c", line]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mem0\n", "{stderr}");
    assert!(stderr.contains("trouble"), "{stderr}");
}

#[test]
fn an_overlay_is_in_the_guests_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("opt")).unwrap();
    std::fs::write(folder.path().join("opt/word"), "overlaid\n").unwrap();
    let Some(output) = boot(&["--overlay", folder.path().to_str().unwrap(), "-c", "cat /opt/word"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "overlaid\n", "{stderr}");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

#[test]
fn named_packages_run_in_the_guest_with_their_libraries() {
    let line = "numactl --show >/dev/null && bash -c 'echo ${BASH_VERSION%%.*} && id -un'";
    let Some(output) = boot(&["--packages", "bash,numactl", "-c", line]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5\nroot\n", "{stderr}");
    assert!(stderr.contains("packages: bash 5."), "{stderr}");
}

#[test]
fn a_hung_guest_is_diagnosed() {
    // The shell's parent is the agent.
    let Some(output) = boot(&["--limit", "20", "-c", "kill -STOP $PPID; sleep 1000"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(stderr.contains("the guest does not answer") && stderr.contains("Kernel panic"), "{stderr}");
    assert!(stderr.contains("QEMU's threads:\n    "), "{stderr}");
}

#[test]
fn a_guest_that_does_not_come_up_is_ended_at_the_limit() {
    // No agent, so nothing reports that the guest is up.
    let init = "rdinit=/usr/bin/busybox -- sleep 1000";
    let Some(output) = boot(&["--limit", "6", "--append", init, "-c", "true"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(stderr.contains("the boot took longer than 6 s"), "{stderr}");
}

/// A process that ends when this is dropped.
struct Terminated(Child);

impl Drop for Terminated {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_scripts_in_the_artifacts_start_the_device_and_the_machine_again() {
    if let Some(obstacle) = obstacle() {
        return println!("skipping: {obstacle}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (temporary, artifacts) = (folder.path().join("temporary"), folder.path().join("what it's left"));
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    command.args(["boot", "-c", "true", "--physical", "64M", "--artifacts"]).arg(&artifacts);
    let output = command.env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let device = std::fs::read_to_string(artifacts.join("device0.sh")).unwrap();
    let (_, socket) = device.split_once("--socket ").unwrap();
    let qemu = std::fs::read_to_string(artifacts.join("qemu.sh")).unwrap();
    assert!(qemu.contains(socket.split_whitespace().next().unwrap()), "{device}{qemu}");
    assert!(device.contains("--physical 64M"), "{device}");

    let again = |script: &str| {
        let mut command = Command::new("sh");
        command.arg(artifacts.join(script)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Terminated(command.spawn().unwrap())
    };
    // QEMU starts first, and must wait for the device.
    let mut machine = again("qemu.sh");
    let _device = again("device0.sh");
    let console = BufReader::new(machine.0.stdout.take().unwrap());
    let mut lines = console.split(b'\n').map(|line| String::from_utf8_lossy(&line.unwrap()).into_owned());
    assert!(lines.any(|line| line.contains("Run /init as init process")), "the guest came up");
    drop(machine);
}

/// Boots with an empty cache and no network; must fail before it needs them.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    command.args(["boot", "--offline", "--cache-dir"]).arg(cache.path()).args(arguments);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn faults_of_this_machine_are_found_before_fetching_and_exit_with_125() {
    for (arguments, sentence) in [
        (&["--overlay", "/nonexistent", "-c", "true"][..], "cannot read --overlay /nonexistent"),
        (&["--overlay", "/dev/null"], "--overlay /dev/null is not a folder"),
        (&["--capacity", "256G", "--accel", "tcg", "-c", "true"], "the largest capacity is 261888 MiB"),
        (&["--capacity", "8T", "--accel", "tcg"], "8 TiB does not fit this guest's address space of 40 bits"),
        (&["--script", "/nonexistent"], "cannot read /nonexistent"),
    ] {
        let (code, error) = refused(arguments);
        assert_eq!(code, Some(125), "{arguments:?}: {error}");
        assert!(error.starts_with("cannot test:") && error.contains(sentence), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_foreign_folder_gets_no_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("qemu.sh"), "mine").unwrap();
    let (code, error) = refused(&["--artifacts", folder.path().to_str().unwrap(), "-c", "true"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("was not made by cxl-cram-harness"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path().join("qemu.sh")).unwrap(), "mine");
}

#[test]
fn an_overlay_that_does_not_fit_into_the_guest_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::File::create(folder.path().join("large")).unwrap().set_len(300 << 20).unwrap();
    let overlay = folder.path().to_str().unwrap();
    let Some(output) = boot(&["--memory", "512M", "--overlay", overlay, "-c", "true"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("(--overlay, --packages) take") && stderr.contains("use --memory"), "{stderr}");
}

#[test]
fn a_full_folder_for_temporary_files_is_the_hosts_fault() {
    if let Some(obstacle) = obstacle() {
        return println!("skipping: {obstacle}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    let output = command.args(["boot", "-c", "true"]).env("TMPDIR", "/proc/nowhere").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("set TMPDIR"), "{stderr}");
}

#[test]
fn a_missing_kernel_exits_with_125() {
    let Some(output) = boot(&["--kernel", "/nonexistent/bzImage", "-c", "true"]) else { return };
    assert_eq!(output.status.code(), Some(125));
}

/// A gdb stub's answer to a packet, without the checksum. Both sides acknowledge.
fn ask(stub: &mut TcpStream, packet: &str) -> String {
    stub.write_all(packet.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !(answer.len() > 2 && answer[answer.len() - 3] == b'#') {
        let mut byte = [0];
        stub.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    stub.write_all(b"+").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    answer.trim_start_matches("+$").split('#').next().unwrap().to_owned()
}

#[test]
fn a_debugger_finds_the_machine_stopped_and_lets_it_run() {
    if let Some(obstacle) = obstacle() {
        return println!("skipping: {obstacle}");
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxl-cram-harness"));
    command.args(["boot", "--gdb", &port.to_string(), "-c", "grep -ow nokaslr /proc/cmdline; exit 7"]);
    let mut harness = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    let mut stderr = BufReader::new(harness.stderr.take().unwrap());
    while !printed.contains(&format!("-ex 'target remote :{port}'\n")) {
        assert_ne!(stderr.read_line(&mut printed).unwrap(), 0, "{printed}");
    }
    let gdb = printed.lines().last().unwrap().trim();
    let vmlinux = gdb.strip_prefix("gdb ").and_then(|gdb| gdb.split(" -ex ").next()).unwrap();
    assert!(vmlinux == "VMLINUX" || Path::new(vmlinux.trim_matches('\'')).is_file(), "{gdb}");

    let mut stub = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(ask(&mut stub, "$?#3f").starts_with("T05"), "stopped by a trap");
    // The reset vector: 16 bytes below 4 GiB.
    let registers = ask(&mut stub, "$g#67");
    assert_eq!(&registers[16 * 16..17 * 16], "f0ff000000000000", "{registers}");
    stub.write_all(b"$c#63").unwrap();
    let output = harness.wait_with_output().unwrap();
    stderr.read_to_string(&mut printed).unwrap();
    assert_eq!(output.status.code(), Some(7), "{printed}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nokaslr\n", "{printed}");
}

#[test]
fn an_unusable_debugger_port_is_refused() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, error) = refused(&["--gdb", &port, "-c", "true"]);
    assert_eq!(code, Some(125), "{error}");
    assert!(error.contains(&format!("port {port}")) && error.contains("--gdb PORT"), "{error}");
    for arguments in [&["--gdb", "0"][..], &["--gdb", "65536"], &["--gdb", "vmlinux"], &["--gdb", "--limit", "60"]] {
        let (code, error) = refused(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
    }
}
