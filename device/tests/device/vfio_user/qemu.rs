//! The server with real QEMU, on a machine without a guest (`-accel qtest`): realize, configuration space, both kinds
//! of region, MSI-X, and the next QEMU after a killed one.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use super::peer::*;

/// Where the test puts things in the guest's physical address space.
const BAR0_AT: u64 = 0xe000_0000;
const BAR2_AT: u64 = 0xd000_0000;
const MESSAGE_AT: u64 = 0x2000;

/// The device is 00:05.0.
const CONFIG_ADDRESS: u32 = 0x8000_2800;

/// A QEMU that has vfio-user-pci (>= 10.1), or why there is none.
fn qemu() -> Result<String, String> {
    let program = std::env::var("CXL_CRAM_QEMU").unwrap_or_else(|_| "qemu-system-x86_64".into());
    let output = Command::new(&program).arg("--version").output().map_err(|error| {
        format!("{program} does not start ({error}); install QEMU >= 10.1 or name one in CXL_CRAM_QEMU")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default();
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (10, 1) => {}
        _ => return Err(format!("{program} is version {version:?}, and vfio-user-pci came with 10.1")),
    }
    // In some packages qtest is a module of its own, and a QEMU that is not installed does not find its modules.
    let mut probe = Command::new(&program)
        .args(["-M", "none", "-accel", "qtest", "-nodefaults", "-display", "none", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = probe.stdin.take().unwrap().write_all(b"quit\n");
    if probe.wait().unwrap().success() {
        Ok(program)
    } else {
        Err(format!("{program} has no qtest accelerator; set QEMU_MODULE_DIR if it is a module"))
    }
}

/// A machine of QEMU's, driven through its qtest protocol. Killed when dropped.
struct Machine {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A machine with the device of this server.
fn machine(program: &str, rig: &Rig) -> Command {
    let mut device = cxl_cram_device::serve::qemu::vfio_user_pci("pcie.0", rig.path());
    device["addr"] = "5.0".into();
    let mut command = Command::new(program);
    command
        .args(["-M", "q35,memory-backend=mem", "-accel", "qtest", "-qtest", "stdio", "-qtest-log", "none"])
        .args(["-nodefaults", "-display", "none", "-m", "64M"])
        .args(["-object", "memory-backend-memfd,id=mem,size=64M,share=on"])
        .args(["-device", &device.to_string()]);
    command
}

impl Machine {
    fn start(program: &str, rig: &Rig) -> Self {
        let mut child = machine(program, rig).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// One qtest command; returns what follows `OK`.
    fn command(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let answer = line.trim().strip_prefix("OK");
        answer.unwrap_or_else(|| panic!("QEMU answered {line:?} to {command:?}")).trim().to_owned()
    }

    fn read(&mut self, command: &str) -> u64 {
        let answer = self.command(command);
        u64::from_str_radix(answer.trim_start_matches("0x"), 16).unwrap()
    }

    fn config_read(&mut self, offset: u32) -> u32 {
        self.command(&format!("outl 0xcf8 {:#x}", CONFIG_ADDRESS | offset));
        self.read("inl 0xcfc") as u32
    }

    fn config_write(&mut self, offset: u32, value: u32) {
        self.command(&format!("outl 0xcf8 {:#x}", CONFIG_ADDRESS | offset));
        self.command(&format!("outl 0xcfc {value:#x}"));
    }

    fn readl(&mut self, address: u64) -> u32 {
        self.read(&format!("readl {address:#x}")) as u32
    }

    fn writel(&mut self, address: u64, value: u32) {
        self.command(&format!("writel {address:#x} {value:#x}"));
    }

    /// Places the BARs and lets the device answer and send.
    fn place(&mut self) {
        self.config_write(0x10, BAR0_AT as u32);
        self.config_write(0x18, BAR2_AT as u32);
        self.config_write(0x1c, 0);
        self.config_write(0x04, 0x6); // memory, bus master
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exercise(rig: &Rig, machine: &mut Machine) {
    assert_eq!(machine.config_read(0), 0x5678_1234);
    machine.place();

    // BAR0: each access is a message.
    machine.writel(BAR0_AT + 0xa00, 0x1122_3344);
    rig.device.wait_for(&Call::Write(BAR0, 0xa00, vec![0x44, 0x33, 0x22, 0x11]), 1);
    assert_eq!(machine.readl(BAR0_AT + 0xa00), 0x1122_3344);

    // BAR2: the front is our file, mapped; what lies behind it is messages.
    machine.writel(BAR2_AT + 0x1_2340, 0x5566_7788);
    let mut mapped = [0; 4];
    rustix::io::pread(&rig.device.bar2, &mut mapped, 0x1_2340).unwrap();
    assert_eq!(mapped, 0x5566_7788u32.to_le_bytes());
    machine.writel(BAR2_AT + BAR2_MMAP_LEN, 0x99aa_bbcc);
    rig.device.wait_for(&Call::Write(BAR2, BAR2_MMAP_LEN, vec![0xcc, 0xbb, 0xaa, 0x99]), 1);
    let mapped_writes = rig.device.calls().iter().filter(|call| matches!(call, Call::Write(BAR2, 0x1_2340, _))).count();
    assert_eq!(mapped_writes, 0, "mapped accesses do not come through the socket");

    // MSI-X vector 3 writes to guest memory.
    let entry = BAR0_AT + 3 * 16;
    machine.writel(entry, MESSAGE_AT as u32);
    machine.writel(entry + 4, 0);
    machine.writel(entry + 8, 0xcafe);
    machine.config_write(0x40, 0x8000_0000 | (VECTORS - 1) << 16); // enable
    assert!(!rig.interrupts.raise(MSIX, 4), "still masked");
    machine.writel(entry + 12, 0); // unmask
    rig.device.wait_for(&Call::Armed(MSIX, 3), 1);
    assert!(rig.interrupts.raise(MSIX, 3));
    while machine.readl(MESSAGE_AT) != 0xcafe {}
}

/// The QEMU to test with. Without one the test is skipped, with the reason on standard error.
fn qemu_or_skip() -> Option<String> {
    qemu()
        .inspect_err(|reason| {
            // Not with eprintln!, which the test runner swallows.
            let _ = writeln!(std::io::stderr(), "skipped: the vfio-user server with real QEMU: {reason}");
        })
        .ok()
}

#[test]
fn a_second_qemu_ends_at_once_with_a_reason_and_the_first_goes_on() {
    let Some(program) = qemu_or_skip() else { return };
    let rig = Rig::start();
    let mut first = Machine::start(&program, &rig);
    assert_eq!(first.config_read(0), 0x5678_1234);
    let begin = Instant::now();
    let second = machine(&program, &rig).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("Device or resource busy"), "{stderr}");
    // QEMU's own timeout is 5 s.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    exercise(&rig, &mut first);
}

#[test]
fn qemu_reaches_configuration_regions_and_interrupts_and_the_next_qemu_does_too() {
    let Some(program) = qemu_or_skip() else { return };
    let rig = Rig::start();
    for _ in 0..2 {
        let mut machine = Machine::start(&program, &rig);
        exercise(&rig, &mut machine);
        drop(machine); // killed, not asked
        rig.device.wait_for(&Call::Gone, 1);
        assert!(!rig.interrupts.raise(MSIX, 3));
        rig.device.forget_calls();
    }
}
