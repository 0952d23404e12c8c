//! A QEMU machine without a guest: the test is its firmware and its processor, over the qtest socket.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixListener, net::UnixStream, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Where the test, as firmware, puts the extended configuration space, the BARs and what MSI-X messages write to.
const ECAM: u64 = 0xb000_0000;
/// BAR0 of the device.
pub(crate) const BAR0: u64 = 0xe000_0000;
/// BAR2 of the device.
pub(crate) const BAR2: u64 = 0x80_0000_0000;
/// A word of RAM for each MSI-X vector: QEMU delivers a message by a store to its address, and RAM can be read.
pub(crate) const MSI_RAM: u64 = 0x10_0000;

const ROOT_PORT: u64 = ECAM + (12 << 20);
/// Configuration space of the device.
pub(crate) const CONFIG: u64 = ECAM + (13 << 20);

/// A running QEMU. Killed on drop.
pub(crate) struct Machine {
    qemu: Child,
    replies: BufReader<UnixStream>,
    commands: UnixStream,
}

impl Machine {
    /// Starts QEMU with a vfio-user-pci on this socket, behind a CXL root port.
    pub(crate) fn start(mut qemu: Command, device: &Path, run: &Path) -> Self {
        let socket = run.join("qtest.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        qemu.args([
            "-M",
            "q35,cxl=on,memory-backend=mem",
            "-accel",
            "qtest",
            "-display",
            "none",
            "-nodefaults",
            "-m",
            "64M",
        ]);
        qemu.args(["-object", "memory-backend-memfd,id=mem,size=64M,share=on"]);
        qemu.args(["-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1"]);
        qemu.args(["-device", "cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2"]);
        let device = cxl_cram_device::serve::qemu::vfio_user_pci("rp0", device);
        qemu.arg("-device").arg(device.to_string()).arg("-qtest").arg(format!("unix:{}", socket.display()));
        qemu.args(["-qtest-log", "/dev/null"]);
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and allocates nothing.
        unsafe {
            qemu.pre_exec(|| {
                Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
            });
        }
        let qemu = qemu.spawn().unwrap();
        let (commands, _) = listener.accept().unwrap();
        commands.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { qemu, replies: BufReader::new(commands.try_clone().unwrap()), commands }
    }

    /// One qtest command; its words after OK.
    pub(crate) fn command(&mut self, text: &str) -> String {
        writeln!(self.commands, "{text}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.replies.read_line(&mut line).unwrap() > 0, "QEMU is gone");
            if let Some(reply) = line.strip_prefix("OK") {
                return reply.trim().to_owned();
            }
            assert!(line.starts_with("IRQ"), "{text}: {line}");
        }
    }

    fn number(&mut self, text: &str) -> u64 {
        let reply = self.command(text);
        u64::from_str_radix(reply.trim_start_matches("0x"), 16).unwrap()
    }

    /// Loads 4 bytes.
    pub(crate) fn readl(&mut self, address: u64) -> u32 {
        self.number(&format!("readl {address:#x}")) as u32
    }

    /// Loads 8 bytes.
    pub(crate) fn readq(&mut self, address: u64) -> u64 {
        self.number(&format!("readq {address:#x}"))
    }

    /// Stores 4 bytes.
    pub(crate) fn writel(&mut self, address: u64, value: u32) {
        self.command(&format!("writel {address:#x} {value:#x}"));
    }

    /// Stores 8 bytes.
    pub(crate) fn writeq(&mut self, address: u64, value: u64) {
        self.command(&format!("writeq {address:#x} {value:#x}"));
    }

    /// Stores bytes.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("write {address:#x} {:#x} 0x{hex}", data.len()));
    }

    /// Loads bytes.
    pub(crate) fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let hex = self.command(&format!("read {address:#x} {length:#x}"));
        let digits = hex.trim_start_matches("0x").as_bytes();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// What firmware does: ECAM on, buses numbered, windows and BARs placed, decoding on.
    pub(crate) fn firmware(&mut self) {
        // PCIEXBAR of the q35 host bridge, through the old configuration ports.
        for (register, value) in [(0x64, 0), (0x60, ECAM as u32 | 1)] {
            self.command(&format!("outl 0xcf8 {:#x}", 0x8000_0000_u32 | register));
            self.command(&format!("outl 0xcfc {value:#x}"));
        }
        self.writel(ROOT_PORT + 0x18, 0x000d_0d0c);
        self.writel(ROOT_PORT + 0x20, 0xe0f0_e000);
        self.writel(ROOT_PORT + 0x24, 0xfff1_0001);
        self.writel(ROOT_PORT + 0x28, (BAR2 >> 32) as u32);
        self.writel(ROOT_PORT + 0x2c, (BAR2 >> 32) as u32);
        self.writel(ROOT_PORT + 0x04, 0x6);
        self.writel(CONFIG + 0x10, BAR0 as u32);
        self.writel(CONFIG + 0x14, 0);
        self.writel(CONFIG + 0x18, BAR2 as u32);
        self.writel(CONFIG + 0x1c, (BAR2 >> 32) as u32);
        self.writel(CONFIG + 0x04, 0x6);
    }

    /// The offset of a capability in configuration space.
    pub(crate) fn capability(&mut self, id: u8) -> u64 {
        let mut at = u64::from(self.readl(CONFIG + 0x34) & 0xfc);
        while at != 0 {
            let header = self.readl(CONFIG + at);
            if header as u8 == id {
                return at;
            }
            at = u64::from(header >> 8 & 0xfc);
        }
        panic!("no capability {id:#x}");
    }

    /// Turns MSI-X on with every vector sent to its own word of RAM, with the data 0x5000 + vector.
    pub(crate) fn enable_msix(&mut self, vectors: u64) {
        let capability = self.capability(0x11);
        let table = BAR0 + u64::from(self.readl(CONFIG + capability + 4) & !7);
        for vector in 0..vectors {
            let entry = table + 16 * vector;
            self.writeq(entry, MSI_RAM + 4 * vector);
            self.writel(entry + 8, 0x5000 + vector as u32);
            self.writel(entry + 12, 0);
        }
        let control = self.readl(CONFIG + capability);
        self.writel(CONFIG + capability, control | 1 << 31);
    }

    /// Waits for a vector's message and takes it away.
    pub(crate) fn await_message(&mut self, vector: u64) {
        for _ in 0..5000 {
            if self.readl(MSI_RAM + 4 * vector) == 0x5000 + vector as u32 {
                self.writel(MSI_RAM + 4 * vector, 0);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("vector {vector} was not signalled");
    }

    /// Kills QEMU as an operator would, and waits for its end.
    pub(crate) fn kill(mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
