//! What the harness says when QEMU does not do its part. A shell script stands for QEMU.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cxl_cram_lab::machine::boot::{Boot, Machine};
use cxl_cram_lab::machine::config::{Device, MachineConfig};
use cxl_cram_lab::machine::learn::{LearnError, learn};
use cxl_cram_lab::machine::process::ProcessError;

fn machine(script: &'static str) -> MachineConfig {
    let qemu = move || {
        let mut command = Command::new("sh");
        command.args(["-c", script, "qemu"]);
        command
    };
    let mut config = MachineConfig::new(Arc::new(qemu));
    config.devices = vec![Device { socket: "/nonexistent/device.sock".into(), capacity: 1 << 30 }];
    config
}

fn learn_with(script: &'static str, limit: Duration) -> (LearnError, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let error = learn(&machine(script), directory.path(), directory.path(), limit).expect_err("this is no QEMU");
    let text = error.to_string();
    (error, text)
}

#[test]
fn a_qemu_that_refuses_to_start_is_quoted() {
    let (_, text) = learn_with("echo 'cannot connect to the device' >&2; exit 1", Duration::from_secs(30));
    assert!(text.contains("cannot connect to the device") && text.contains("exit status: 1"), "{text}");
}

#[test]
fn a_qemu_that_does_not_listen_is_given_up_and_killed() {
    let (error, text) = learn_with("exec sleep 1000", Duration::from_millis(100));
    assert!(matches!(error, LearnError::Qmp(_)), "{text}");
    assert!(text.contains("qmp.sock"), "{text}");
}

#[test]
fn a_qemu_that_exits_before_it_listens_is_not_said_to_be_deaf() {
    let (_, text) = learn_with("exit 3", Duration::from_secs(30));
    assert!(text.starts_with("QEMU exited before opening its socket"), "{text}");
}

#[test]
fn a_device_that_qemu_waits_for_in_vain_is_named() {
    let script = "echo 'vfio-user: timed out waiting for reply' >&2; exit 1";
    let (_, text) = learn_with(script, Duration::from_secs(30));
    assert!(text.contains("the device did not answer QEMU in time"), "{text}");
}

#[test]
fn a_full_disk_is_told_with_what_helps() {
    use std::error::Error;
    let full = std::fs::write("/dev/full", "x").unwrap_err();
    let error = ProcessError::File { path: "/x/qemu.sh".into(), source: full };
    assert!(error.to_string().starts_with("cannot write /x/qemu.sh; set TMPDIR"), "{error}");
    assert!(error.source().unwrap().to_string().contains("No space left"));
}

#[test]
fn a_machine_that_dies_before_its_agent_speaks_shows_its_console() {
    let artifacts = tempfile::tempdir().unwrap();
    let boot = Boot {
        kernel: "/nonexistent/kernel".into(),
        initrd: "/nonexistent/initrd".into(),
        append: String::new(),
        expected: Vec::new(),
        terminal: None,
        debugger: None,
        patience: 1,
    };
    let script = "echo 'Kernel panic - not syncing: no root'; exit 0";
    let error = Machine::boot(&machine(script), &boot, artifacts.path()).err().unwrap().to_string();
    assert!(error.contains("the guest kernel reported: Kernel panic - not syncing: no root"), "{error}");
    let log = std::fs::read_to_string(Path::new(artifacts.path()).join("console.log")).unwrap();
    assert_eq!(log, "Kernel panic - not syncing: no root\n");
}
