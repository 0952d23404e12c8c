//! `acpi` on a real QEMU, which runs its firmware but no guest.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use cxl_cram_lab::provision::{self, Progress};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cxl-cram-harness");

/// A serving device.
struct Device {
    child: Child,
    socket: PathBuf,
}

impl Device {
    fn serve(folder: &Path, name: &str, capacity: &str) -> Self {
        let socket = folder.join(name);
        let mut child = Command::new(PROGRAM)
            .args(["as-device", "serve", "--window", "trap", "--physical", "64M", "--capacity", capacity, "--socket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(!ready.is_empty(), "the device did not start");
        Self { child, socket }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Makes the override for a machine with these devices, started by a script that does not `exec` QEMU.
fn acpi(folder: &Path, options: &[&str], devices: &[&Device], machine: &[&str]) -> Output {
    let qemu = provision::qemu(&provision::Options::default(), &Progress::stderr()).unwrap().command();
    let mut command = Command::new(PROGRAM);
    command.arg("acpi").args(options).arg("--output").arg(folder.join("acpi.cpio"));
    command.args(["--", "sh", "-c", "\"$@\"; exit", "sh"]).arg(qemu.get_program()).args(qemu.get_args());
    command.envs(qemu.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args("-nodefaults -display none -serial stdio -M q35,cxl=on,memory-backend=mem -m 256M".split(' '));
    command.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
    command.args(["-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl"]);
    for (port, device) in devices.iter().enumerate() {
        command.args(["-device", &format!("cxl-rp,port={port},bus=cxl,id=rp{port},chassis=0,slot={}", port + 2)]);
        let function = cxl_cram_device::serve::qemu::vfio_user_pci(&format!("rp{port}"), &device.socket);
        command.args(["-device", &function.to_string()]);
    }
    command.args(machine).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_device_reports_its_capacity() {
    let folder = tempfile::tempdir().unwrap();
    let devices = [Device::serve(folder.path(), "a", "768M"), Device::serve(folder.path(), "b", "256M")];
    let devices = devices.each_ref();
    let windows = |options: &[&str]| -> Vec<String> {
        let output = acpi(folder.path(), options, &devices, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.lines().filter_map(|line| Some(line.split(" at ").next()?.to_owned())).collect()
    };
    assert_eq!(windows(&[]), ["CXL window of 768 MiB", "CXL window of 256 MiB"]);
    assert!(folder.path().join("acpi.cpio").metadata().unwrap().len() > 0);
    let smaller = ["--capacity", "512M", "--capacity", "256M"];
    assert_eq!(windows(&smaller), ["CXL window of 512 MiB", "CXL window of 256 MiB"]);
    let output = acpi(folder.path(), &["--capacity", "512M", "--capacity", "512M"], &devices, &[]);
    assert!(stderr(&output).contains("--capacity 512 MiB exceeds device 1's 256 MiB"), "{}", stderr(&output));
}

#[test]
fn the_size_of_a_window_is_a_multiple_of_256_mib() {
    for capacity in ["0", "100M", "300M", "9T"] {
        let output =
            Command::new(PROGRAM).args(["acpi", "-o", "x", "--capacity", capacity, "--", "true"]).output().unwrap();
        let error = stderr(&output);
        assert!(error.contains("must be 256 MiB to 8 TiB, in steps of 256 MiB"), "{capacity}: {error}");
    }
}
